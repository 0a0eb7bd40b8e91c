"""Who signed a bundle: what a signature covers, and what is refused."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.bundle import Bundle, pack, record_proof, write_bundle
from runtime.errors import BundleError, EdgedlError, InputError
from runtime.fields import BundleWarning
from runtime.manifest import Manifest
from runtime.minisign import PublicKey, SecretKey
from runtime.proofs import Proof
from runtime.signatures import Claim, check, claims, read_keys, read_secret_key, sign
from tests.frozen_bundles import unpack

VECTORS = Path(__file__).parent / "minisign"
ALICE = "C07E2D98E565292D"
BOB = "3828FD2416E0A3C0"
CAROL = SecretKey(b"carolkey", b"3" * 32)
FIRST = "manifest.json.minisig"

Parts = tuple[Manifest, dict[str, bytes]]


def never() -> str:
    raise AssertionError("the key has no password")


@pytest.fixture
def key(tmp_path: Path) -> SecretKey:
    return SecretKey.from_bytes((VECTORS / "alice.key").read_bytes(), never)


@pytest.fixture
def keys() -> tuple[PublicKey, ...]:
    return trusted("alice.pub")


def trusted(*names: str) -> tuple[PublicKey, ...]:
    return tuple(key for name in names for key in read_keys(VECTORS / name))


@pytest.fixture
def packed(linear_bundle: Bundle, key: SecretKey, tmp_path: Path) -> Bundle:
    """Signed by alice."""
    return pack(linear_bundle, tmp_path / "signed.edge", signatures=sign(linear_bundle, key))


def unpacked(bundle: Bundle, folder: Path) -> Bundle:
    """The same files as a folder, signatures included."""
    folder.mkdir()
    for name in ("manifest.json", *bundle.files):
        (folder / name).write_bytes(bundle.read(name))
    for name, data in bundle.signatures.items():
        (folder / name).write_bytes(data)
    return Bundle.open(folder)


@pytest.fixture(params=["folder", "packed"])
def signed(request: pytest.FixtureRequest, packed: Bundle, tmp_path: Path) -> Bundle:
    return packed if request.param == "packed" else unpacked(packed, tmp_path / "folder.edge")


def refused(bundle: Bundle, keys: tuple[PublicKey, ...], reason: str) -> None:
    with pytest.raises(BundleError, match=reason) as caught:
        check(bundle, keys)
    assert caught.value.exit_status == 2
    assert str(caught.value).startswith(str(bundle.path))


def test_a_signed_bundle_is_as_its_signer_left_it(signed, keys, linear_bundle):
    signer = check(signed, keys)
    assert (signer.name, signer.key, signer.file) == (ALICE, ALICE, FIRST)
    assert signer.comment.endswith(f"\tfile:manifest.json\thashed\tdigest:{linear_bundle.digest}")
    assert signed.digest == linear_bundle.digest
    assert claims(signed) == (Claim(FIRST, ALICE),)


@pytest.mark.parametrize("vector", ["hashed", "pure", "bob", "exact"])
@pytest.mark.parametrize("form", ["folder", "packed"])
def test_an_old_bundle_that_minisign_itself_signed(vector, form, tmp_path):
    bundle = unpacked(unpack("sgd", tmp_path), tmp_path / "sgd")
    shutil.copy(VECTORS / f"{vector}.minisig", bundle.path / FIRST)
    bundle = Bundle.open(bundle.path)
    if form == "packed":
        bundle = pack(bundle, tmp_path / "packed.edge")
    signer = check(bundle, trusted("alice.pub", "bob.pub"))
    assert signer.key == (BOB if vector == "bob" else ALICE)
    refused(bundle, trusted("alice.pub" if vector == "bob" else "bob.pub"), "which is not trusted")


def test_proofs_copies_and_packing_leave_the_signature(signed, keys, tmp_path):
    before = signed.signatures
    proof = Proof(signed.digest, "arm64", "1.32.0", "Cortex-A72", "fp32", ok=True, date="2026-11-29")
    proven = record_proof(signed.path, proof)
    assert (proven.digest, proven.signatures, len(proven.proofs)) == (signed.digest, before, 1)
    check(proven, keys)
    copy = shutil.copytree if signed.path.is_dir() else shutil.copy
    again = pack(Bundle.open(copy(signed.path, tmp_path / "copy.edge")), tmp_path / "again.edge")
    assert again.signatures == before
    assert check(again, keys) == check(signed, keys)
    assert pack(again, again.path).path.read_bytes() == again.path.read_bytes()


def test_files_that_belong_to_nobody_change_nothing(packed, keys, tmp_path):
    folder = unpacked(packed, tmp_path / "folder.edge").path
    (folder / "README").write_text("hello")
    with pytest.warns(BundleWarning, match="does not name: README$"):
        bundle = Bundle.open(folder)
    check(bundle, keys)
    check(pack(bundle, tmp_path / "again.edge"), keys)


def test_a_bundle_with_a_signature_can_be_replaced_by_an_export(packed, linear_parts, keys, tmp_path):
    folder = unpacked(packed, tmp_path / "folder.edge").path
    refused(write_bundle(folder, *linear_parts), keys, "it has no signature")


def test_an_unsigned_bundle_is_refused(linear_bundle, keys):
    refused(linear_bundle, keys, rf"it has no signature; trusted are: {ALICE}\. Get a signed copy")
    refused(linear_bundle, (), "trusted are: none")


def test_another_key_is_refused(signed):
    refused(signed, trusted("bob.pub"), f"{FIRST} is by the key {ALICE}, which is not trusted; trusted are: {BOB}")


def test_a_key_that_only_bears_the_number_is_refused(signed, keys):
    refused(signed, (replace(keys[0], key=CAROL.public.key),), "it does not fit")
    check(signed, (replace(keys[0], key=CAROL.public.key), *keys))


def test_the_signature_of_another_bundle_is_refused(packed, keys, linear_parts, tmp_path):
    manifest, files = linear_parts
    other = write_bundle(tmp_path / "other.edge", replace(manifest, version="9"), files)
    (other.path / FIRST).write_bytes(packed.signatures[FIRST])
    refused(Bundle.open(other.path), keys, f"{FIRST} claims to be by {ALICE}, but it does not fit")


def test_files_that_changed_places_are_refused(packed, keys, tmp_path):
    folder = unpacked(packed, tmp_path / "folder.edge").path
    (folder / "NOTICE").rename(folder / "notice.txt")
    with pytest.raises(BundleError, match="NOTICE is missing"):
        Bundle.open(folder)
    document = json.loads((folder / "manifest.json").read_text())
    document["files"]["notice"]["file"] = "notice.txt"
    (folder / "manifest.json").write_text(json.dumps(document))
    refused(Bundle.open(folder), keys, "it does not fit")


DAMAGED = {
    "empty": b"",
    "one line": b"untrusted comment: x\n",
    "no base64": b"untrusted comment: x\n!\ntrusted comment: y\n!\n",
    "not text": b"\xff" * 300,
    "a public key": (VECTORS / "alice.pub").read_bytes(),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_signature_is_told_and_hides_no_good_one(data, packed, keys, tmp_path):
    folder = unpacked(packed, tmp_path / "folder.edge").path
    good = packed.signatures[FIRST]
    (folder / FIRST).write_bytes(data)
    bundle = Bundle.open(folder)
    assert claims(bundle) == (Claim(FIRST, None),)
    refused(bundle, keys, rf"{FIRST} is not a signature \(")
    (folder / "manifest.json.second.minisig").write_bytes(good)
    assert check(pack(Bundle.open(folder), tmp_path / "again.edge"), keys).file == "manifest.json.second.minisig"


def test_a_signature_as_large_as_a_graph_is_not_read(packed, keys, tmp_path):
    folder = unpacked(packed, tmp_path / "folder.edge").path
    (folder / FIRST).write_bytes(bytes(1 << 20))
    with pytest.raises(BundleError, match="1048576 bytes, too many for a signature; remove it"):
        check(Bundle.open(folder), keys)


def test_several_signers(packed, keys, tmp_path):
    both = pack(packed, tmp_path / "both.edge", signatures=sign(packed, CAROL))
    carol = CAROL.public.name
    assert claims(both) == (Claim(f"manifest.json.{carol}.minisig", carol), Claim(FIRST, ALICE))
    assert check(both, keys).key == ALICE
    assert check(both, (CAROL.public,)).key == carol
    again = pack(both, tmp_path / "again.edge", signatures=sign(both, CAROL))
    assert [claim.file for claim in claims(again)] == [claim.file for claim in claims(both)]


@pytest.fixture
def every_byte(packed: Bundle, tmp_path: Path) -> Path:
    return unpacked(packed, tmp_path / "folder.edge").path


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), mask=st.integers(1, 255))
def test_any_changed_byte_of_any_file_is_refused(every_byte, keys, data, mask):
    file = data.draw(st.sampled_from(sorted(every_byte.iterdir())))
    content = file.read_bytes()
    covered = content.index(b"\n") if file.name == FIRST else 0  # but for the signature's untrusted comment
    place = data.draw(st.integers(covered, len(content) - 1))
    file.write_bytes(content[:place] + bytes([content[place] ^ mask]) + content[place + 1 :])
    try:
        if file.name == FIRST and place in (covered, len(content) - 1) and content[place] ^ mask == ord("\r"):
            return  # another end of a line
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BundleWarning)
            with pytest.raises(EdgedlError):
                check(Bundle.open(every_byte, check=False), keys)
    finally:
        file.write_bytes(content)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**6), mask=st.integers(1, 255))
def test_a_changed_byte_of_a_packed_bundle_is_refused_or_changes_nothing(packed, keys, tmp_path, place, mask):
    whole = packed.path.read_bytes()
    place %= len(whole)
    file = tmp_path / "changed.edge"
    file.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BundleWarning)
        try:
            bundle = Bundle.open(file, check=False)
            check(bundle, keys)
        except EdgedlError:
            return
    assert bundle.digest == packed.digest
    assert [bundle.read(name) for name in bundle.files] == [packed.read(name) for name in packed.files]


def test_a_bundle_that_changes_after_the_check_is_noticed(signed, keys):
    check(signed, keys)
    target = signed.path / "linear.onnx" if signed.path.is_dir() else signed.path
    target.write_bytes(bytes(target.stat().st_size))
    with pytest.raises(BundleError):
        signed.graph("linear")
    with pytest.raises(BundleError):
        check(signed, keys)


# Files of keys.


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(content: str | bytes, mode: int = 0o600) -> Path:
        path = tmp_path / "keys"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    return write


def line(name: str) -> str:
    return (VECTORS / name).read_text().splitlines()[1]


def test_a_file_of_several_keys_with_names(write, signed):
    alice, bob = line("alice.pub"), line("bob.pub")
    path = write(
        f"# the team\n\nuntrusted comment: Alice Größer\r\n{alice}\r\n  {bob}\n{bob}\nuntrusted comment: left over"
    )
    found = read_keys(path)
    assert [key.name for key in found] == ["Alice Größer", BOB]
    assert str(check(signed, found)) == f"Alice Größer ({ALICE})"
    with pytest.raises(BundleError, match=f"which is not trusted; trusted are: {BOB}"):
        check(signed, found[1:])


def test_joined_files_of_minisign(write):
    path = write((VECTORS / "alice.pub").read_bytes() + (VECTORS / "bob.pub").read_bytes())
    assert [key.name for key in read_keys(path)] == [ALICE, BOB]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "holds no public key"),
        ("untrusted comment: nobody\n# nothing\n", "holds no public key"),
        ((VECTORS / "alice.key").read_text(), "line 2 is not a public key of minisign: this is a secret key"),
        (line("alice.pub") + "\nalice\n", "line 2 is not a public key"),
        (line("alice.pub") + " alice\n", "line 1 is not a public key"),
        (b"\xff\xfe\0", "line 1 is not a public key"),
        (b"#" * (1 << 20) + b"#", "more than 1048576 bytes"),
    ],
    ids=["empty", "comments", "secret", "word", "name", "binary", "large"],
)
def test_a_file_that_holds_something_else(write, content, reason):
    with pytest.raises(InputError, match=reason):
        read_keys(write(content))


@pytest.mark.parametrize("name", ["nothing", "."])
def test_a_file_that_cannot_be_read(tmp_path, name):
    with pytest.raises(InputError, match=r"No such file|Is a directory"):
        read_keys(tmp_path / name)
    with pytest.raises(InputError, match=r"No such file|Is a directory"):
        read_secret_key(tmp_path / name, never)


def test_others_may_not_reach_the_keys(write):
    secret = (VECTORS / "alice.key").read_bytes()
    read_secret_key(write(secret), never)
    with pytest.warns(UserWarning, match="can be read by others; mend it with: chmod 600"):
        read_secret_key(write(secret, 0o640), never)
    read_keys(write(line("alice.pub"), 0o644))
    with pytest.warns(UserWarning, match="can be changed by others; mend it with: chmod go-w"):
        read_keys(write(line("alice.pub"), 0o664))


def test_a_password(write):
    path = write((VECTORS / "locked.key").read_bytes())
    assert read_secret_key(path, lambda: "correct horse").public == trusted("alice.pub")[0]
    with pytest.raises(InputError, match="cannot sign: the password is wrong"):
        read_secret_key(path, lambda: "")
