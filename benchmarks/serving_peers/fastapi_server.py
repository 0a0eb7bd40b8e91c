"""FastAPI under uvicorn: a function that runs in one of its threads, as its manual advises for blocking work."""

import os

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from network import as_lists, open_network, read, run

app = FastAPI()
session = open_network()


@app.post("/predict")
async def predict(request: Request):
    body = await request.body()
    return JSONResponse(await run_in_threadpool(lambda: as_lists(run(session, read(body)))))


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
