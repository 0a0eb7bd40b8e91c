"""BentoML: its server, with a route that takes the same bytes as the others."""

import bentoml
from network import as_lists, open_network, read, run
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse
from starlette.routing import Route

SESSION = []


async def predict(request):
    body = await request.body()
    return JSONResponse(await run_in_threadpool(lambda: as_lists(run(SESSION[0], read(body)))))


@bentoml.service(workers=1)
@bentoml.asgi_app(Starlette(routes=[Route("/predict", predict, methods=["POST"])]), path="/")
class Network:
    def __init__(self):
        SESSION.append(open_network())
