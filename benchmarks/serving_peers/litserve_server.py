"""LitServe with batches of up to eight."""

import os
from typing import Annotated

import litserve
import numpy as np
from fastapi import Body
from network import as_lists, open_network, read, run


class Network(litserve.LitAPI):
    def setup(self, device):
        self.session = open_network()

    def decode_request(self, request: Annotated[bytes, Body()]):
        return read(request)

    def batch(self, inputs):
        return np.concatenate(inputs)

    def predict(self, array):
        return run(self.session, array)

    def unbatch(self, answer):
        count = len(next(iter(answer.values())))
        return [{name: value[row : row + 1] for name, value in answer.items()} for row in range(count)]

    def encode_response(self, answer):
        return as_lists(answer)


if __name__ == "__main__":
    server = litserve.LitServer(
        Network(max_batch_size=8, batch_timeout=float(os.environ.get("BATCH_TIMEOUT", "0.001"))), accelerator="cpu"
    )
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="warning")
