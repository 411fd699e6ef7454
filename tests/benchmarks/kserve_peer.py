"""KServe's model server over onnxruntime; run by the peer's own interpreter: PORT, {NAME: PATH}."""

import json
import sys

import numpy as np
import onnxruntime
from kserve import InferOutput, InferResponse, Model, ModelServer


class Served(Model):
    """One ONNX model."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options)
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        del headers, response_headers
        inputs = {each.name: each.as_numpy() for each in payload.inputs}
        outputs = []
        for node, array in zip(
            self.session.get_outputs(), self.session.run(None, inputs), strict=True
        ):
            output = InferOutput(node.name, list(array.shape), "FP32")
            output.set_data_from_numpy(array, binary_data=True)
            outputs.append(output)
        return InferResponse(payload.id or "1", self.name, outputs)


if __name__ == "__main__":
    port, paths = int(sys.argv[1]), json.loads(sys.argv[2])
    np.seterr(all="ignore")
    models = [Served(name, path) for name, path in paths.items()]
    ModelServer(http_port=port, enable_grpc=False, workers=1).start(models)
