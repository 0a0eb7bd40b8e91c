"""``/v2``: the Open Inference Protocol, version 2, over HTTP, with the binary tensor data extension.

Only `service.routes.v2.routes` knows Flask. The other modules turn bytes into arrays and arrays into bytes.

See https://github.com/kserve/open-inference-protocol and
https://github.com/triton-inference-server/server/tree/main/docs/protocol for the extensions.
"""
