"""Writes the graphs of this folder: ``python make.py`` where skl2onnx and onnxmltools are installed.

The data are drawn here. The graphs are kept as files because neither tool is needed to develop edgedl.
"""

from pathlib import Path

import numpy as np
import onnxmltools
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.cluster import KMeans
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

HERE = Path(__file__).parent
RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 4)).astype(np.float32)
KIND = (X[:, 0] + X[:, 1] ** 2 > 0.5).astype(np.int64) + (X[:, 2] > 1)
VALUE = X @ np.float32([1, -2, 0.5, 0]) + np.sin(X[:, 3])

MODELS = {
    "scaled_logistic_with_maps": make_pipeline(StandardScaler(), LogisticRegression()).fit(X, KIND),
    "forest": RandomForestClassifier(5, max_depth=4, random_state=0).fit(X, KIND),
    "boosted": GradientBoostingRegressor(n_estimators=10, max_depth=2, random_state=0).fit(X, VALUE),
    "perceptron": make_pipeline(
        StandardScaler(), MLPRegressor(hidden_layer_sizes=(8,), max_iter=300, random_state=0)
    ).fit(X, VALUE),
    "clusters": KMeans(3, n_init=1, random_state=0).fit(X),
    "support_vectors": SVC(random_state=0).fit(X[:60], KIND[:60]),
}

for name, model in MODELS.items():
    (HERE / f"sklearn_{name}.onnx").write_bytes(to_onnx(model, X[:1], target_opset=17).SerializeToString())
kinds = [("x", FloatTensorType([None, 4]))]
graph = onnxmltools.convert_sklearn(MODELS["scaled_logistic_with_maps"], initial_types=kinds, target_opset=12)
onnxmltools.utils.save_model(graph, str(HERE / "onnxmltools_logistic.onnx"))
