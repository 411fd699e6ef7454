"""Ask a served model with Triton's own client: pip install "tritonclient[http]"

trimtab serve m=model.onnx
python deploy/examples/with_tritonclient.py --model m
"""

import argparse

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import triton_to_np_dtype


def main() -> None:
    """Describe a model, then run it on zeros: JSON never touches the tensors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--url", default="127.0.0.1:8000")
    parser.add_argument("--model", required=True)
    arguments = parser.parse_args()
    with triton.InferenceServerClient(arguments.url) as client:
        metadata = client.get_model_metadata(arguments.model)
        inputs = []
        for each in metadata["inputs"]:
            shape = [1 if size == -1 else size for size in each["shape"]]
            zeros = np.zeros(shape, triton_to_np_dtype(each["datatype"]))
            if each["datatype"] == "BYTES":
                zeros = np.full(shape, b"", object)
            tensor = triton.InferInput(each["name"], shape, each["datatype"])
            tensor.set_data_from_numpy(zeros)
            inputs.append(tensor)
            print(f"input  {each['name']} {each['datatype']} {each['shape']}")
        result = client.infer(arguments.model, inputs, request_id="1", timeout=2_000_000)
        for output in result.get_response()["outputs"]:
            array = result.as_numpy(output["name"])
            print(f"output {output['name']} {array.shape}: {array.ravel()[:5]} ...")


if __name__ == "__main__":
    main()
