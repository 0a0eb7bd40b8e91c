"""What else forward does: complex numbers, half precision, masks among indices, hooks, algebra, questions to torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.compiler import is_compiling, is_exporting

from exporters.copies import duplicate
from exporters.export import export_model
from exporters.rounded import write_roundings
from runtime.devices import onnxruntime
from tests.exporters.strangers import ROWS, SERIES, Stranger, check, collection, names, net, x, y

MODULES, stranger = collection()


@stranger
def asks_whether_it_is_exported() -> Stranger:
    """What it answers while nobody asks is right, also where the functions were imported by name."""

    def forward(self: Any, x: Tensor) -> Tensor:
        z = self.a(x)
        if is_exporting() or torch.onnx.is_in_onnx_export():
            return z
        return z.exp() if is_compiling() or torch._dynamo.is_compiling() else z.softmax(-1)

    return Stranger(net(forward, a=nn.Linear(8, 4)), [x(ROWS)], [y(("N", 4))])


@stranger
def hooks_that_hold_the_module() -> Stranger:
    """A list that a hook closes over, a method, and a forward that another one stands in for."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.kept = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4), []
            kept, forward = self.kept, self.c.forward
            self.a.register_forward_hook(lambda part, given, answer: kept.append(answer))
            self.b.register_forward_hook(lambda part, given, answer: answer + self.kept[-1])
            self.c.forward = lambda x: forward(x) * self.a.weight.mean()

        def forward(self, x: Tensor) -> Tensor:
            self.kept.clear()
            return self.c(self.b(self.a(x)))

    return Stranger(Net().eval(), [x(ROWS)], [y(("N", 4))], eager=lambda m, x: duplicate(m, {})(x))


@stranger
def half_precision_within() -> Stranger:
    """Judged by float16 and bfloat16 as torch itself rounds to them."""

    def forward(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = (self.q(x) @ x.transpose(1, 2)).half().softmax(-1).float()
        return scores @ x, self.q(x).to(torch.bfloat16).float()

    return Stranger(
        net(forward, q=nn.Linear(8, 8)), [x(SERIES)], [y(SERIES), y(SERIES, "b")], sizes=({"N": 1, "T": 4},)
    )


@stranger
def complex_numbers() -> Stranger:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.w = nn.Linear(8, 8), nn.Parameter(torch.randn(8, 8, 3, dtype=torch.cfloat) / 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            z = torch.fft.rfft(self.a(x), dim=1)
            kept = torch.zeros_like(z)
            kept[:, :3] = torch.einsum("nti,iot->nto", z[:, :3], self.w)
            turned = torch.exp(1j * kept.imag) / (z * z.conj() + (2 - 1j))
            return torch.fft.irfft(kept, n=8, dim=1), torch.view_as_real(turned.mean(-1))

    return Stranger(Net().eval(), [x(("N", 8, 8))], [y(("N", 8, 8)), y(("N", 5, 2), "z")], sizes=({"N": 1}, {"N": 3}))


@stranger
def spectrum_filtered_and_back() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        window = torch.hann_window(6)
        z = torch.stft(x, 8, 2, 6, window=window, return_complex=True)
        return torch.istft(z * self.a(z.abs()).sigmoid(), 8, 2, 6, window=window, length=x.shape[-1])

    return Stranger(
        net(forward, a=nn.Conv1d(5, 5, 1)),
        [x(("N", "T"))],
        [y(("N", "T"))],
        sizes=({"N": 1, "T": 9}, {"N": 2, "T": 33}),
    )


@stranger
def algebra_of_inputs() -> Stranger:
    def forward(self: Any, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        square = self.l(a) @ a.mT + torch.eye(2)
        sure = a @ a.mT + torch.eye(2)
        sign, logarithm = torch.linalg.slogdet(sure)
        solved = torch.linalg.solve(sure, b)
        return torch.inverse(sure), solved, torch.linalg.det(square), sign * logarithm, torch.linalg.cholesky(sure)

    shapes = [("N", 2, 2), ("N", 2, 3), ("N",), ("N",), ("N", 2, 2)]
    return Stranger(
        net(forward, l=nn.Linear(2, 2)), [x(("N", 2, 2), "a"), x(("N", 2, 3), "b")],
        [y(shape, f"y{at}") for at, shape in enumerate(shapes)],
    )  # fmt: skip


@stranger
def masks_among_indices() -> Stranger:
    def forward(self: Any, x: Tensor, mask: Tensor, i: Tensor) -> tuple[Tensor, ...]:
        z, rows = self.a(x), torch.arange(x.shape[0])
        one, two = z.clone(), z.clone()
        one[mask, i[mask]] = 2.0
        one[:, mask[0]] = 0.5
        two[rows, :, i[:, 0]] = 5.0
        two[mask] = torch.arange(8.0)
        two[:, i[0], 1] += 1.0
        return one, two, torch.masked_select(z, mask.unsqueeze(-1))

    steps = ("N", 7)
    return Stranger(
        net(forward, a=nn.Linear(8, 8)),
        [x(("N", 7, 8)), x(steps, "mask", "bool"), x(steps, "i", "int64", limits=(0, 6))],
        [y(("N", 7, 8)), y(("N", 7, 8), "two"), y(("K",), "three")], sizes=({"N": 1}, {"N": 3}),
    )  # fmt: skip


@stranger
def losses_of_rows() -> Stranger:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.w = nn.Linear(8, 4), nn.Parameter(torch.rand(4) + 0.1)

        def forward(self, x: Tensor, kinds: Tensor) -> tuple[Tensor, ...]:
            z = self.a(x).transpose(1, 2)
            rows = F.cross_entropy(z, kinds, reduction="none")
            smooth = F.cross_entropy(z, z.softmax(1), self.w, label_smoothing=0.1)
            return rows, smooth, F.cross_entropy(z, kinds, self.w, ignore_index=1, label_smoothing=0.1)

    return Stranger(
        Net().eval(), [x(SERIES), x(("N", "T"), "kinds", "int64", limits=(0, 3))],
        [y(("N", "T")), y((), "smooth"), y((), "mean")],
    )  # fmt: skip


@stranger
def whole_numbers_beside_their_type() -> Stranger:
    def forward(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        half = int(x.shape[1] * 0.5)
        places = (torch.arange(half, dtype=int) * 1.5).to(int)
        return self.a(x)[:, places], self.a(x)[:, half:]

    return Stranger(
        net(forward, a=nn.Linear(8, 4)), [x(SERIES)], [y(("N", "U", 4)), y(("N", "V", 4), "z")],
        sizes=({"N": 1, "T": 2}, {"N": 3, "T": 19}),
    )  # fmt: skip


@stranger
def best_path_of_tags() -> Stranger:
    """Viterbi: states of two results, one of which the first step is not asked for."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            moves = torch.randn(5, 5)
            moves[3], moves[:, 4] = -10000.0, -10000.0
            self.a, self.moves = nn.Linear(8, 5), nn.Parameter(moves)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            scores, found = torch.full((x.size(0), 5), -10000.0), []
            scores[:, 3] = 0
            for t in range(x.size(1)):
                best, tags = (scores.unsqueeze(1) + self.moves).max(2)
                scores = best + self.a(x[:, t])
                found.append(tags)
            score, tag = (scores + self.moves[4]).max(1)
            path = [tag]
            for tags in reversed(found[1:]):
                tag = tags.gather(1, tag.unsqueeze(1)).squeeze(1)
                path.append(tag)
            path.reverse()
            return score, torch.stack(path, 1)

    return Stranger(Net().eval(), [x(SERIES)], [y(("N",)), y(("N", "T"), "path", "int64")])


@stranger
def filter_with_an_inverse() -> Stranger:
    """Kalman's, whose covariance depends on no input, and frames that are put in a row after the loop."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.move, self.see = nn.Parameter(torch.eye(2) + 0.1 * torch.randn(2, 2)), nn.Parameter(torch.randn(2, 2))

        def forward(self, z: Tensor) -> Tensor:
            mean, spread, found = torch.zeros(z.shape[0], 2, 1), torch.eye(2).expand(z.shape[0], 2, 2), []
            for t in range(z.shape[1]):
                mean, spread = self.move @ mean, self.move @ spread @ self.move.T + 0.1 * torch.eye(2)
                gain = spread @ self.see.T @ torch.inverse(self.see @ spread @ self.see.T + torch.eye(2))
                mean, spread = (
                    mean + gain @ (z[:, t].unsqueeze(-1) - self.see @ mean),
                    spread - gain @ self.see @ spread,
                )
                found.append(mean.squeeze(-1))
            return torch.stack(found, 1).view(z.shape[0], -1)

    return Stranger(Net().eval(), [x(("N", "T", 2), "z")], [y(("N", "U"))])


@stranger
def decisions_beside_large_logits() -> Stranger:
    """At logits of 10,000 a unit in the last place of the input moves a soft-max by 1e-4: no fault of the graph."""

    def forward(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        p = self.a(x).log_softmax(-1)
        best = p.argmax(-1)
        keep = torch.ones_like(best, dtype=torch.bool)
        keep[:, 1:] = best[:, 1:] != best[:, :-1]
        return p.exp().max(-1).values, best * keep

    tokens = ("N", "T")
    return Stranger(net(forward, a=nn.Linear(8, 5)), [x(SERIES)], [y(tokens), y(tokens, "i", "int64")])


@stranger
def answers_within_a_dict() -> Stranger:
    def forward(self: Any, x: Tensor) -> dict[str, Any]:
        z = self.a(x)
        return {"past": ((z, z * 2), (z + 1, None)), "logits": self.q.dequant(self.q.add(z, z))}

    stub = torch.ao.nn.quantized.FloatFunctional()
    stub.dequant = nn.Identity()
    outputs = [y(("N", 4), "logits"), y(("N", 4), "k0"), y(("N", 4), "v0"), y(("N", 4), "k1")]

    def eager(module: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
        answers = module(x)
        (k0, v0), (k1, _) = answers["past"]
        return answers["logits"], k0, v0, k1

    return Stranger(net(forward, a=nn.Linear(8, 4), q=stub), [x(ROWS)], outputs, eager=eager)


@stranger
def checks_of_values_and_parts_of_an_axis() -> Stranger:
    def forward(self: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert x.dim() == 3 and not torch.isnan(x).any() and x.max() < 1e9, "numbers"  # noqa: PT018 - one condition
        if not torch.isfinite(x).all():
            raise ValueError("not finite")
        z = self.a(x)
        first, second = z.chunk(2, 1)
        third, fourth = z.tensor_split(2, dim=1)
        sorted_ = torch.take_along_dim(z, z.argsort(-1), -1) / float(x.shape[1])
        return first.sum(1) - second.sum(1), third.sum(1) * fourth.mean((1, 2), keepdim=True).sum(1), sorted_

    return Stranger(
        net(forward, a=nn.Linear(8, 4)), [x(SERIES)], [y(("N", 4)), y(("N", 4), "b"), y(("N", "T", 4), "c")],
        sizes=({"N": 1, "T": 2}, {"N": 3, "T": 19}),
    )  # fmt: skip


@stranger
def branch_on_a_value_that_does_something() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        if x.max() > 1:
            x = x / x.max()
        return self.a(x)

    return Stranger(
        net(forward, a=nn.Linear(8, 4)), [x(ROWS)], [y(("N", 4))], refused="forward.py:.*if x.max.*decides by values"
    )


@stranger
def filter_of_its_own_answers() -> Stranger:
    """Each step reads its own answers of one and of two steps before, where there are any."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor([0.2, 0.5, -0.3]))

        def forward(self, x: Tensor) -> Tensor:
            found = torch.zeros_like(x)
            for t in range(x.shape[1]):
                value = self.w[0] * x[:, t]
                if t > 0:
                    value = value + self.w[1] * found[:, t - 1]
                if t > 1:
                    value = value + self.w[2] * found[:, t - 2]
                found[:, t] = value
            return found

    return Stranger(Net().eval(), [x(("N", "T"))], [y(("N", "T"))], sizes=({"N": 1, "T": 3}, {"N": 2, "T": 19}))


@stranger
def rounding_decides() -> Stranger:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.a(x)[:, (torch.linspace(0, 1, 4) * (x.shape[1] - 1)).to(torch.int64)]

    return Stranger(
        net(forward, a=nn.Linear(8, 4)), [x(SERIES)], [y(("N", 4, 4))], refused="float32's rounding decides there"
    )


@pytest.mark.parametrize("name", names(MODULES, "filter_with_an_inverse", "best_path_of_tags"))
def test_a_kind_of_forward_is_right_or_refused_for_the_true_cause(name: str) -> None:
    check(MODULES[name])


def test_narrow_casts_are_named_with_their_line() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = self.a(x)
        return z.half().float()

    model = export_model(net(forward, a=nn.Linear(8, 4)), inputs=[x(ROWS)], outputs=[y(("N", 4))])
    (rounded,) = [note for note in model.report.notes if note.startswith("rounded as forward asks for it")]
    assert "float16 at test_kinds_of_forward.py:" in rounded
    assert "return z.half().float()" in rounded
    assert any("autocast to bfloat16 at" in note for note in model.report.notes)


@pytest.mark.parametrize(("kind", "dtype"), [("FLOAT16", torch.float16), ("BFLOAT16", torch.bfloat16)])
def test_numbers_are_rounded_as_torch_rounds_them(kind: str, dtype: torch.dtype) -> None:
    """All powers of two with numbers around them, ties among them, infinities, and random bits."""
    powers = np.float32(2.0) ** np.arange(-30, 109)
    near = [powers * np.float32(1 + step / 2**14) for step in range(-40, 41)]
    rng = np.random.default_rng(0)
    values = np.concatenate([*near, rng.standard_normal(20000) * 10.0 ** rng.integers(-6, 6, 20000), [0, np.inf]])
    values = np.concatenate([values, -values]).astype(np.float32)
    wide, narrow = onnx.TensorProto.FLOAT, getattr(onnx.TensorProto, kind)
    cast, back = (onnx.helper.make_node("Cast", [a], [b], to=to) for a, b, to in (("x", "h", narrow), ("h", "y", wide)))
    given, answer = (onnx.helper.make_tensor_value_info(name, wide, ["N"]) for name in "xy")
    graph = onnx.helper.make_graph([cast, back], "g", [given], [answer])
    graph.value_info.append(onnx.helper.make_tensor_value_info("h", narrow, ["N"]))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    assert write_roundings(model) == 1
    session = onnxruntime().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": values})[0]
    np.testing.assert_array_equal(found, torch.from_numpy(values).to(dtype).float().numpy())
