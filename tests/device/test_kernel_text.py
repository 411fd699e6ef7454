"""The readers of kernel text find what was written, and never fail on what was not."""

from hypothesis import example, given
from hypothesis import strategies as st

from agent.device import cgroups, kernel

WORDS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)


@given(st.dictionaries(WORDS, st.integers(0, 2**50), max_size=30))
def test_meminfo_gives_back_every_line_in_bytes(values: dict[str, int]) -> None:
    text = "".join(f"{name}: {amount:>11} kB\n" for name, amount in values.items())
    assert kernel.meminfo_bytes(text) == {name: 1024 * amount for name, amount in values.items()}


@given(st.lists(st.sets(st.sampled_from(kernel.INT8_FLAGS)), min_size=1, max_size=8))
def test_only_flags_that_every_cpu_has_count(cpus: list[set[str]]) -> None:
    text = "\n".join(
        f"processor : {n}\nflags : fpu {' '.join(has)}\n" for n, has in enumerate(cpus)
    )
    found = kernel.isa(kernel.cpu_blocks(text))
    assert set(found) == set.intersection(*cpus)
    assert list(found) == [flag for flag in kernel.INT8_FLAGS if flag in found]


@given(st.sets(st.integers(0, 2000), max_size=40))
def test_a_cpu_list_reads_back(cpus: set[int]) -> None:
    assert kernel.cpu_list(",".join(map(str, sorted(cpus)))) == cpus


def test_a_cpu_list_of_ranges_reads_back() -> None:
    assert kernel.cpu_list("0-2,4,8-9\n") == {0, 1, 2, 4, 8, 9}


@given(st.lists(st.lists(st.integers(0, 10**6), min_size=10, max_size=10), min_size=1, max_size=6))
def test_idle_time_is_never_more_than_all_time(rows: list[list[int]]) -> None:
    stat = "cpu  1 2 3 4\n" + "".join(
        f"cpu{n} {' '.join(map(str, row))}\n" for n, row in enumerate(rows)
    )
    for number, times in kernel.cpu_times(stat).items():
        assert times.total == sum(rows[number][:8])
        assert times.idle == rows[number][3] + rows[number][4]


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_the_idle_share_is_that_of_the_cpus_asked_for(idle: int, busy: int) -> None:
    zero = kernel.CpuTimes(0, 0)
    after = {0: kernel.CpuTimes(idle, idle + busy), 1: kernel.CpuTimes(10**6, 10**6)}
    share = kernel.idle_share({0: zero, 1: zero}, after, cpus=frozenset({0}))
    assert share == (idle / (idle + busy) if idle + busy else 0.0)


def test_a_cpu_that_was_off_between_two_samples_does_not_count() -> None:
    before, after = {0: kernel.CpuTimes(50, 100)}, {1: kernel.CpuTimes(50, 100)}
    assert kernel.idle_share(before, after, cpus=frozenset({0, 1})) == 0.0


def test_old_kernels_without_memavailable_are_estimated_from_what_is_droppable() -> None:
    old = {"MemFree": 10, "Cached": 50, "Buffers": 5, "Shmem": 20}
    assert kernel.available_bytes(old) == 45
    assert kernel.available_bytes({"MemFree": 10, "Shmem": 20}) == 10


@given(st.text(max_size=400))
@example("0-\n,-3,7-5,\u0663")
@example("cpu0 1 2\ncpu1 x\n")
@example("12:cpu\n0::relative\n:::\n1:a:/b:c\n")
def test_no_reader_fails_on_any_text(text: str) -> None:
    kernel.meminfo_bytes(text)
    kernel.isa(kernel.cpu_blocks(text))
    kernel.cpu_times(text)
    kernel.cpu_list(text)
    cgroups.memberships(text)
    cgroups.mounts(text)


@given(st.lists(st.tuples(st.sets(WORDS, max_size=3), st.lists(WORDS, max_size=4)), max_size=8))
def test_memberships_read_back_with_colons_in_their_paths(
    groups: list[tuple[set[str], list[str]]],
) -> None:
    text = "".join(
        f"{n}:{','.join(names)}:/{'/'.join(parts)}:x\n" for n, (names, parts) in enumerate(groups)
    )
    found = cgroups.memberships(text)
    assert [set(group.controllers) for group in found] == [names for names, _ in groups]
    assert [str(group.path) for group in found] == [f"/{'/'.join(parts)}:x" for _, parts in groups]


def test_a_mount_point_with_a_space_is_unescaped() -> None:
    line = r"30 23 0:26 / /sys/fs/c\040group rw shared:4 - cgroup2 cgroup2 rw" + "\n"
    assert str(cgroups.mounts(line)[0].point) == "/sys/fs/c group"
