"""What a notebook shows of a result: facts, the state in its colour, a picture of magnitudes."""

import base64
import io
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import scipy.sparse

from outputs import (
    MissingDependencyError,
    ResultError,
    ResultWriter,
    Shard,
    TensorSpec,
    VerificationState,
    open_result,
    open_sparse_result,
    write_sparse,
)
from outputs._reading.presentation import picture as pictures
from outputs._reading.presentation.picture import MISSING, NOT_FINITE, ZERO
from outputs._reading.result import Result
from outputs.merge import main as merge
from outputs.show import main as show

VOID = {"img", "br"}
HOSTILE = '<script>alert(1)</script><img src=x onerror=alert(2)>" \x1b[2J \u202e $\\frac{a$'


class Parser(HTMLParser):
    """Read a page strictly: every element is closed, and its attributes are known."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.images: list[bytes] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        assert {*named} <= {"style", "class", "alt", "src", "width", "height"}, named
        self.tags.append(tag)
        if tag == "img":
            kind, _, data = (named["src"] or "").partition(",")
            assert kind == "data:image/png;base64"
            self.images.append(base64.b64decode(data))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def pixels(self) -> np.ndarray:
        """The picture as three bytes for each pixel, decoded by Matplotlib."""
        image = pytest.importorskip("matplotlib.image").imread(io.BytesIO(self.images[0]))
        return np.rint(image[..., :3] * 255).astype(np.uint8)


def colour(text: str) -> list[int]:
    return list(bytes.fromhex(text))


def write(path, describe, matrix, record=None, **changes):
    fields = {"dtype": str(matrix.dtype), **changes}
    with ResultWriter.create(path, describe(matrix.shape, **fields)) as writer:
        writer.write(0, len(matrix) if fields.get("axis") != "columns" else len(matrix.T), matrix)
        writer.finish(record or {})
    return path


def verification(state):
    figures = {"kind": "probe", "state": state, "state_reason": f"because of {state}"}
    return {"seconds": 2.0, "lines_computed": 12, "verification": figures}


def page_of(path) -> Parser:
    with Result(path) as result:
        return Parser(result._repr_html_())


@pytest.mark.parametrize("state", VerificationState)
def test_the_state_comes_first_and_in_its_colour(describe, entries, tmp_path, state):
    path = write(tmp_path / "r.h5", describe, entries((12, 20), "float64"), verification(state))
    with open_result(path) as result:
        text = result._repr_html_()
    page = Parser(text)
    assert page.text.lower().startswith(state.value)
    assert f"because of {state}" in page.text
    (begin,) = re.findall(rf"<(\w+) style=\"background:{state.colour};color:#ffffff", text)
    # A mark for what is verified; a bar across the page for everything else.
    assert begin == ("span" if state is VerificationState.VERIFIED else "div")
    assert (state.value.upper() in page.text) is (state is not VerificationState.VERIFIED)


def test_it_tells_what_show_tells(describe, entries, tmp_path, capsys):
    record = verification("verified")
    path = write(tmp_path / "r.h5", describe, entries((12, 20), "float64"), record)
    page = page_of(path)
    assert show([str(path)]) == 0
    for line in capsys.readouterr().out.splitlines():
        for cell in re.findall(r"[│┃] ([^│┃]+)", line):
            # Long cells are folded on a terminal, and the state is tested above.
            if str(tmp_path)[:9] not in cell and cell.split()[0] not in (
                "verification",
                "verified:",
            ):
                assert " ".join(cell.split()) in page.text
    assert str(path) in page.text
    assert {"script", "link", "iframe"}.isdisjoint(page.tags)


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_the_picture_shows_every_entry_of_a_small_matrix(describe, entries, tmp_path, axis):
    matrix = np.abs(entries((12, 20), "float64")) + 0.1
    matrix[3, 4], matrix[5, 6], matrix[7, 8] = 0, np.nan, -np.inf
    with Result(write(tmp_path / "r.h5", describe, matrix, axis=axis)) as result:
        seen = pictures.dense_picture(result)
        page = Parser(result._repr_html_())
    finite = np.where(np.isfinite(matrix), matrix, 0)
    np.testing.assert_array_equal(seen.magnitude, np.abs(finite))
    np.testing.assert_array_equal(seen.nonfinite, ~np.isfinite(matrix))
    assert page.pixels.shape == (12, 20, 3)
    assert page.pixels[3, 4].tolist() == colour(ZERO)
    assert page.pixels[5, 6].tolist() == page.pixels[7, 8].tolist() == colour(NOT_FINITE)
    assert "NaN or Inf" in page.text
    # The colours are those of Matplotlib, in the order of the magnitudes.
    viridis = pytest.importorskip("matplotlib").colormaps["viridis"]
    largest = np.unravel_index(finite.argmax(), finite.shape)
    expected = np.array(viridis(1.0)[:3]) * 255
    np.testing.assert_allclose(page.pixels[largest], expected, atol=2)
    middle = np.sort(finite[finite > 0])[len(finite) // 2]
    low, high = seen.range or (0, 0)
    height = (np.log(middle) - np.log(low)) / (np.log(high) - np.log(low))
    (place,) = np.argwhere(finite == middle)
    np.testing.assert_allclose(page.pixels[*place], np.array(viridis(height)[:3]) * 255, atol=6)


@pytest.mark.parametrize("tile", [None, (16, 50), (200, 5)])
def test_a_large_matrix_is_sampled(describe, tmp_path, monkeypatch, tile):
    rows = np.linspace(1, 2, 700)
    matrix = rows[:, None] * np.linspace(1, 3, 900)
    path = write(tmp_path / "r.h5", describe, matrix, tile=tile)
    monkeypatch.setattr(pictures, "_MOST_BYTES", 200_000)
    monkeypatch.setattr(pictures, "_RUN_BYTES", 800)
    read = []
    with Result(path) as result:
        store = result.stored_matrix

        class Counted:
            shape, dtype, chunks = store.shape, store.dtype, store.chunks

            def __getitem__(self, region):
                read.append(store[region].nbytes)
                return store[region]

        page = Parser(result._repr_html_())
        monkeypatch.setattr(result, "stored_matrix", Counted())
        seen = pictures.dense_picture(result)
    assert sum(read) <= 200_000
    assert len(read) > 20
    assert seen.is_sample
    assert seen.seen.all()
    assert "of a sample" in page.text
    down, across = seen.magnitude.shape
    # Each cell has an entry that the matrix has within that cell.
    for i, line in enumerate(seen.magnitude):
        for j, value in enumerate(line):
            band = matrix[i * 700 // down : -(-(i + 1) * 700 // down)]
            part = band[:, j * 900 // across : -(-(j + 1) * 900 // across)]
            # A tile that is only partly within its cell reaches into the next.
            assert part.min() * 0.8 <= value <= part.max() * 1.3


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_missing_lines_are_not_shown_as_numbers(describe, tmp_path, axis):
    describing = describe((12, 20), axis=axis)
    with ResultWriter.create(tmp_path / "r.h5", describing) as writer:
        writer.write(0, 5, np.ones((5, 20) if axis == "rows" else (12, 5)))
        page = page_of(writer.part)
    missing = (page.pixels == colour(MISSING)).all(-1)
    expected = np.zeros((12, 20), bool)
    expected[(slice(5, None), slice(None)) if axis == "rows" else (slice(None), slice(5, None))] = 1
    np.testing.assert_array_equal(missing, expected)
    assert "not computed yet" in page.text
    assert page.text.startswith("NOT VERIFIED: the result is unfinished")


def test_shards_and_their_virtual_matrix(describe, entries, tmp_path, monkeypatch):
    matrix = entries((12, 20), "float64")
    parts = [(0, 7), (7, 12)]
    for index, (start, stop) in enumerate(parts):
        path = tmp_path / f"shard-{index}-of-2" / "result.h5"
        path.parent.mkdir()
        describing = describe((12, 20), shard=Shard(index, 2, start, stop), tile=(3, 5))
        with ResultWriter.create(path, describing) as writer:
            writer.write(start, stop, matrix[start:stop])
            writer.finish({})
        assert page_of(path).pixels.shape == (stop - start, 20, 3)
    assert merge([str(tmp_path), "-o", str(tmp_path / "result.h5"), "--virtual"]) == 0
    with open_result(tmp_path / "result.h5") as result:
        np.testing.assert_array_equal(pictures.dense_picture(result).magnitude, np.abs(matrix))
        monkeypatch.setattr(pictures, "_MOST_BYTES", 500)
        sampled = pictures.dense_picture(result)
        # The tiles are those of the shards.
        assert sampled.is_sample
        assert sampled.magnitude.shape[1] < 20
        assert Parser(result._repr_html_()).images


def test_the_matrices_of_many_points(describe, entries, tmp_path):
    matrix = entries((60, 4), "float64")
    describing = describe((6, 4), points=10)
    with ResultWriter.create(tmp_path / "r.h5", describing) as writer:
        writer.write(0, 60, matrix)
        writer.finish({})
    page = page_of(tmp_path / "r.h5")
    assert page.pixels.shape == (60, 4, 3)
    assert "10 points of 6 x 4" in page.text
    with open_result(tmp_path / "r.h5") as result, pytest.raises(ResultError, match="10 points"):
        result.plot()


@pytest.mark.parametrize("dtype", ["complex64", "int64", "float16"])
@pytest.mark.parametrize("shape", [(1, 1), (0, 20), (1, 700), (300, 2)])
def test_every_shape_and_dtype(describe, entries, tmp_path, shape, dtype):
    path = tmp_path / "r.h5"
    with ResultWriter.create(path, describe(shape, dtype=dtype)) as writer:
        if shape[0]:
            writer.write(0, shape[0], entries(shape, dtype))
        writer.finish({})
    page = page_of(path)
    assert bool(page.images) is (0 not in shape)
    assert dtype in page.text


def sparse(tmp_path, describe, matrix, **changes):
    empty = np.zeros(matrix.shape[1], np.int64)
    write_sparse(
        tmp_path / "s.h5",
        describe(matrix.shape, dtype=str(matrix.dtype), **changes),
        *(matrix.indptr, matrix.indices, lambda part: matrix.data[part]),
        colours={"column_colours": empty},
        kind="column",
        execution=verification("partly verified"),
    )
    return open_sparse_result(tmp_path / "s.h5")


def test_a_sparse_matrix(describe, tmp_path, monkeypatch):
    matrix = scipy.sparse.random_array(
        (60, 45), density=0.1, format="csr", rng=np.random.default_rng(0)
    )
    matrix.data[7] = np.nan
    with sparse(tmp_path, describe, matrix) as result:
        page = Parser(result._repr_html_())
        dense = matrix.toarray()
        assert (page.pixels == colour(ZERO)).all(-1).sum() == (dense == 0).sum()
        assert (page.pixels == colour(NOT_FINITE)).all(-1).sum() == 1
        assert page.text.startswith("PARTLY VERIFIED")
        assert f"{matrix.nnz} , " in page.text.replace(",", " ,")
        monkeypatch.setattr(pictures, "_MOST_BYTES", 2000)
        monkeypatch.setattr(pictures, "_CELLS", 10)
        sampled = pictures.sparse_picture(result)
    assert sampled.is_sample
    assert sampled.magnitude.shape == (10, 10)
    assert 0 < sampled.magnitude.max() <= np.nanmax(np.abs(matrix.data))


def test_text_of_a_file_is_only_text(describe, entries, tmp_path):
    specs = {"rows": (TensorSpec(HOSTILE, (12,), "float64"),)}
    provenance = {HOSTILE: HOSTILE, "created": HOSTILE}
    path = tmp_path / "r.h5"
    record = {"note": HOSTILE, "verification": {"state": HOSTILE, "a": {HOSTILE: [HOSTILE]}}}
    changes = {"function": HOSTILE * 300, "provenance": provenance, **specs}
    write(path, describe, entries((12, 20), "float64"), record, **changes)
    with open_result(path) as result:
        text = result._repr_html_()
    page = Parser(text)
    assert page.tags.count("img") == 1
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.text
    assert not {"\x1b", "\u202e"} & set(text)
    assert len(text) < 40_000
    # MathJax leaves elements of these classes alone.
    assert text.startswith('<div class="tex2jax_ignore mathjax_ignore"')


def test_a_closed_and_a_damaged_result_are_shown_too(describe, entries, tmp_path):
    path = write(tmp_path / "r.h5", describe, entries((64, 64), "float64"))
    with open_result(path) as result:
        pass
    page = Parser(result._repr_html_())
    assert f"{path} is closed" in page.text
    packed = tmp_path / "packed.h5"
    write(packed, describe, entries((64, 64), "float64"), tile=(8, 8), compression="gzip")
    with open_result(packed) as result:
        info = result.dataset().id.get_chunk_info(3)
    with packed.open("r+b") as file:
        file.seek(info.byte_offset)
        file.write(b"\xff" * info.size)
    page = page_of(packed)
    assert "The matrix cannot be read" in page.text
    assert "64 x 64" in page.text


def test_it_needs_no_matplotlib(describe, entries, tmp_path, monkeypatch):
    path = write(tmp_path / "r.h5", describe, entries((12, 20), "float64"))
    code = (
        "import sys; sys.modules['matplotlib'] = sys.modules['scipy'] = None; "
        "from outputs import open_result; "
        f"print(open_result({str(path)!r})._repr_html_())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert Parser(done.stdout).images
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with open_result(path) as result, pytest.raises(MissingDependencyError) as caught:
        result.plot()
    assert str(caught.value) == (
        "result.plot() needs matplotlib: pip install 'autodiff-jobs[plot]'."
    )


def test_plot_returns_a_figure(describe, entries, tmp_path):
    figure_class = pytest.importorskip("matplotlib.figure").Figure
    path = write(tmp_path / "r.h5", describe, entries((12, 20), "float64"))
    with open_result(path) as result:
        figure = result.plot()
        without_spectrum = result.plot(values=0)
    assert isinstance(figure, figure_class)
    assert len(figure.axes) == len(without_spectrum.axes) + 1
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    matrix = scipy.sparse.eye_array(30, format="csr")
    with sparse(tmp_path, describe, matrix) as result:
        assert isinstance(result.plot(), figure_class)


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
@pytest.mark.parametrize("background", ["#ffffff", "#111111"])
def test_a_browser_shows_it(describe, entries, tmp_path, background):
    read = pytest.importorskip("matplotlib.image").imread
    state = VerificationState.NOT_VERIFIED
    path = write(tmp_path / "r.h5", describe, entries((40, 40), "float64"), verification(state))
    ink = "#111111" if background == "#ffffff" else "#eeeeee"
    with open_result(path) as result:
        body = f'<body style="background:{background};color:{ink}">{result._repr_html_()}</body>'
    page = tmp_path / "page.html"
    page.write_text(f'<!doctype html><meta charset="utf-8">{body}', encoding="utf-8")
    picture = tmp_path / "page.png"
    command = [
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,700"),
        *(f"--user-data-dir={tmp_path / 'browser'}", f"--screenshot={picture}", page.as_uri()),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    pixels = np.rint(read(picture)[..., :3] * 255).astype(int)
    red = (np.abs(pixels - colour(state.colour[1:])) <= 2).all(-1)
    # The bar is as wide as the page, and the text on the page has the colour of the page's text.
    assert red.sum(1).max() > 800
    assert red.sum() > 15_000
    for wanted in (background, ink, f"#{pictures.VIRIDIS[-1]}"):
        assert (np.abs(pixels - colour(wanted[1:])) <= 12).all(-1).any(), wanted
