"""Pictures: what is taken for one, and what never is."""

import base64
import io
import zipfile

import pytest
from PIL import Image
from report.made import data_url, picture

from dbnorm_vdb.errors import InvalidParameterError, MissingDependencyError
from dbnorm_vdb.report.pictures import Pictures


def decoded(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def bomb():
    """64 million pixels in a few kilobytes."""
    buffer = io.BytesIO()
    Image.new("1", (8000, 8000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 100_000
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("form", [data_url, lambda content: base64.b64encode(content).decode()])
def test_data_urls_and_base64_become_a_small_webp(kind, form):
    pictures = Pictures("image")
    assert pictures.add({"image": form(picture(kind=kind))}) == 0
    (text,) = pictures.encoded(96)
    with decoded(text) as image:
        assert (image.format, image.size) == ("WEBP", (96, 64))
    assert pictures.notes == []


def test_the_same_picture_is_kept_once():
    pictures = Pictures("meta.image")
    red, blue = data_url(picture("red")), data_url(picture("blue"))
    assert [pictures.add({"meta": {"image": value}}) for value in (red, blue, red)] == [0, 1, 0]
    assert len(pictures.encoded(32)) == 2


@pytest.mark.parametrize(
    "value",
    [
        "data:image/svg+xml;base64," + base64.b64encode(b"<svg onload='alert(1)'/>").decode(),
        data_url(b"GIF89a/*<script>*/" + b"\0" * 100),
        data_url(picture()[:100]),
        data_url(bomb()),
        "data:image/png;base64,!!!!",
        base64.b64encode(b"no picture at all, but base64 of a long text").decode(),
        "short",
    ],
    ids=["svg", "not-a-gif", "cut-off", "bomb", "not-base64", "base64-of-text", "short"],
)
def test_what_cannot_be_decoded_is_no_picture_and_the_report_says_so(value):
    pictures = Pictures("image")
    assert pictures.add({"image": value}) is None
    assert pictures.notes == ["1 picture is no PNG, JPEG, WebP, GIF or BMP that can be decoded."]


@pytest.mark.parametrize(
    "value",
    [
        "https://example.com/a.png",
        "//example.com/a.png",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "data:text/html,x",
    ],
)
def test_addresses_are_never_opened(value, tmp_path):
    pictures = Pictures("image", tmp_path)
    assert pictures.add({"image": value}) is None
    assert "1 picture is at an address elsewhere" in pictures.notes[0]


@pytest.mark.parametrize("archive", [False, True])
def test_paths_are_below_the_root_and_nowhere_else(archive, tmp_path):
    (tmp_path / "outside.png").write_bytes(picture())
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "in.png").write_bytes(picture())
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    if archive:
        root = tmp_path / "root.zip"
        with zipfile.ZipFile(root, "w") as file:
            file.writestr("sub/in.png", picture())
    pictures = Pictures("image", root)
    assert pictures.add({"image": "sub/in.png"}) == 0
    assert pictures.add({"image": "/sub/in.png"}) == 1
    outside = ["../outside.png", "sub/../../outside.png", "..\\outside.png", str(tmp_path / "outside.png"), "link.png"]
    for name in [*outside, "sub", "a\0b", "x" * 5000]:
        assert pictures.add({"image": name}) is None, name
    assert pictures.notes == [f"{len(outside) + 3} pictures are not under image_root."]


def test_without_a_root_nothing_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "a" * 40 + ".png"
    (tmp_path / name).write_bytes(picture())
    assert Pictures("image").add({"image": name}) is None


def test_roots_that_are_none(tmp_path):
    with pytest.raises(InvalidParameterError, match="is no folder and no zip archive"):
        Pictures("image", tmp_path / "missing")
    with pytest.raises(InvalidParameterError, match="no image_field"):
        Pictures(None, tmp_path)


def test_pillow_is_asked_for_only_with_pictures(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    Pictures()
    with pytest.raises(MissingDependencyError, match=r"dbnorm-vdb\[report\]"):
        Pictures("image")
