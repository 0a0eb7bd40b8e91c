"""One graph from a photo to ages: the steps of `runtime.pipelines.age`, written in ONNX."""
