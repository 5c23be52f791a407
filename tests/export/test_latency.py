from export import measure_latency


def test_measure_latency_returns_microseconds(export_folder) -> None:
    latency = measure_latency(export_folder / "policy.onnx", calls=200)
    assert 0 < latency["p50"] <= latency["p99"] < 1e6
