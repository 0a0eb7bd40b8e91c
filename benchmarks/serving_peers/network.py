"""What every peer does with a request: an .npy file in, the network, lists of numbers out."""

import io
import os

import numpy as np
import onnxruntime


def open_network():
    """The graph named by MODEL, with as many threads as THREADS says."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["THREADS"])
    # As edgedl has it: threads that spin after a run would take the time of the next request's parsing.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])


def read(body):
    """The array of an .npy file."""
    return np.load(io.BytesIO(body), allow_pickle=False)


def run(session, array):
    """The outputs by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: array}), strict=True))


def as_lists(answer):
    """What JSON takes."""
    return {"outputs": {name: value.tolist() for name, value in answer.items()}}
