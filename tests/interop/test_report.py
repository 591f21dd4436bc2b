"""Report pages in a browser: the numbers that a page shows are those of the records, and it bears whatever a run has."""

import json
import math
import shutil
import subprocess

import numpy as np
import pytest
from browser import Browser

CONFIG = {
    "name": "small",
    "data": {"path": "text.txt"},
    "model": {"layers": 3, "heads": 2, "width": 16, "context": 8},
    "schedule": {"warmup": 5},
    "train": {"steps": 40, "batch": 4, "eval_every": 10, "eval_batches": 2, "checkpoint_every": 0},
    "stability": {"probe_every": 4},
}
ODD_NAME = "</script><b id=injected>ünï 漢 & \"quoted\" 'x' <!--"
OVERFLOW = ["optimizer.lr=1e20", "schedule.kind=constant", "schedule.warmup=0", "optimizer.weight_decay=0"]


def lines_of(file):
    """The records of a file, with Python's spelling of what JSON has no number for."""
    special = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
    records = [json.loads(line) for line in file.read_text().splitlines()]
    return [{key: special.get(value, value) if isinstance(value, str) else value for key, value in record.items()}
            for record in records]


def numbers(values):
    """What the page has sent (see PAGE_NUMBERS) as an array; None becomes -1, which no statistic here is."""
    return np.array([-1.0 if value is None else float(value) for value in values])


class Laboratory:
    """A directory of runs and the pages that are made of them."""

    def __init__(self, program, directory):
        self.program = program
        self.directory = directory
        (directory / "text.txt").write_text("".join(f"the cat sat on mat {i * i}.\n" for i in range(60)))
        (directory / "small.json").write_text(json.dumps(CONFIG))

    def __call__(self, *arguments):
        return subprocess.run([self.program, *map(str, arguments)], cwd=self.directory, capture_output=True, text=True)

    def train(self, name, *settings, status=0):
        done = self("train", "small.json", "--out", f"runs/{name}", "--threads", 1,
                    *(word for setting in settings for word in ("--set", setting)))
        assert done.returncode == status, done.stderr
        return self.directory / "runs" / name

    def report(self, name, *runs, status=0):
        done = self("report", *(f"runs/{run}" for run in runs), "-o", f"{name}.html")
        assert done.returncode == status, done.stderr
        return self.directory / f"{name}.html"


@pytest.fixture(scope="module")
def lab(build_directory, tmp_path_factory):
    lab = Laboratory(build_directory / "ballast", tmp_path_factory.mktemp("report"))
    lab.train("stable")
    lab.train("overflow", *OVERFLOW, status=3)
    lab.train("bare", "stability.probe_every=0", "train.eval_every=0")
    lab.train(f"odd/{ODD_NAME}")
    for placement in ("pre", "post"):
        for lr in ("0.001", "0.01", "0.1"):
            lab.train(f"{placement}-{lr}", f"model.norm.placement={placement}", f"optimizer.lr={lr}", "train.steps=12")
    unfinished = lab.directory / "runs" / "unfinished"
    shutil.copytree(lab.directory / "runs" / "stable", unfinished)
    (unfinished / "summary.json").unlink()
    records = (unfinished / "metrics.jsonl").read_text().splitlines(keepends=True)
    (unfinished / "metrics.jsonl").write_text("".join(records[:17]) + records[17][:30])
    corrupt = lab.directory / "runs" / "corrupt"
    shutil.copytree(lab.directory / "runs" / "stable", corrupt)
    (corrupt / "metrics.jsonl").write_text("".join(records[:3]) + "{broken\n" + "".join(records[4:]))
    return lab


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


def open_page(browser, page, **view):
    browser.view(**view)
    browser.open(page)
    assert browser.complaints() == []


def cells(browser, table):
    """Texts and titles of a table's rows."""
    return browser.evaluate(
        f"Array.from(document.querySelectorAll('#{table} tbody tr'), row => Array.from(row.cells, cell => "
        "[cell.textContent, cell.title]))"
    )


# Drawn lines of the figures, by title, kind and run; numbers as texts, as JSON has none for NaN.
PAGE_NUMBERS = """figures.filter(figure => figure instanceof LineChart).flatMap(figure => figure.columns
    .filter(column => !column.average).map(column => {
        const name = figure.graph.getLabels().indexOf(column.name);
        const rows = Array.from({length: figure.graph.numRows()}, (_, row) => row);
        const points = rows.map(row => [figure.graph.getValue(row, 0), figure.graph.getValue(row, name)])
            .filter(point => point[1] !== null);
        return {title: figure.options.title, kind: column.line.kind, run: column.line.run.label,
                steps: points.map(point => point[0]), drawn: points.map(point => String(point[1])),
                known: column.line.series.middle.map(value => value === null ? null : String(value))};
    }))"""

STEP_CHARTS = {
    "Loss (nats/token)": "loss", "Gradient norm": "gradient_norm", "Update ratio": "update_ratio", "Learning rate": "lr",
    "Mean log Z (nats)": "mean_log_z", "Largest output logit": "max_logit", "Parameter norm": "parameter_norm",
    "Tokens per second": "tokens_per_second",
}


def test_every_drawn_number_is_the_recorded_one(lab, browser):
    runs = ("stable", "overflow", "bare", "unfinished")
    open_page(browser, lab.report("numbers", *runs))
    records = {run: lines_of(lab.directory / "runs" / run / "metrics.jsonl") for run in runs[:3]}
    records["unfinished"] = records["stable"][:17]
    lines = browser.evaluate(PAGE_NUMBERS)
    seen = set()
    for line in lines:
        if line["title"] not in STEP_CHARTS:
            continue
        name = "val_loss" if line["kind"] == "points" else STEP_CHARTS[line["title"]]
        expected = {record["step"]: record[name] for record in records[line["run"]] if name in record}
        drawn = dict(zip(line["steps"], numbers(line["drawn"])))
        logarithmic = line["title"] in ("Gradient norm", "Update ratio", "Largest output logit", "Parameter norm")
        for step, value in expected.items():
            gap = not math.isfinite(value) or (logarithmic and value <= 0)
            assert math.isnan(drawn.pop(step)) if gap else drawn.pop(step) == value
        assert not drawn
        known = [value for value in line["known"] if value is not None]
        np.testing.assert_array_equal(numbers(known), numbers(expected.values()))
        seen.add((line["run"], name))
    for run in runs:
        for name in STEP_CHARTS.values():
            assert (run, name) in seen
    assert ("stable", "val_loss") in seen


def test_tables_have_the_numbers_of_the_summary(lab, browser):
    runs = ("stable", "overflow", "unfinished")
    open_page(browser, lab.report("tables", *runs))
    rows = dict(zip(runs, cells(browser, "runs")))
    for run in ("stable", "overflow"):
        summary = json.loads((lab.directory / "runs" / run / "summary.json").read_text())
        row = rows[run]
        assert summary["verdict"].replace("_", " ") in row[1][0]
        for column, name in ((3, "final_loss"), (4, "final_val_loss"), (5, "best_val_loss"), (7, "tokens_per_second")):
            if name in summary:
                assert float(row[column][1]) == pytest.approx(float(summary[name]), rel=0, abs=0, nan_ok=True)
                assert row[column][0] != "–"
            else:
                assert row[column] == ["–", ""]
    assert rows["overflow"][3][0] == "NaN"
    assert "no verdict yet" in rows["unfinished"][1][0]
    assert rows["unfinished"][2][0] == "17 of 40"
    page = browser.evaluate("document.getElementById('page').innerText")
    assert "is not finite" in page
    assert "confidence" in page
    cause = json.loads(lab("diagnose", "runs/overflow", "--json").stdout)["causes"][0]
    assert cause["meaning"] in page and cause["evidence"][0] in page and cause["advice"] in page


def test_maps_gather_what_the_layers_have_recorded(lab, browser):
    open_page(browser, lab.report("maps", "stable"))
    tables = browser.evaluate("data.runs[0].layers")
    records = lines_of(lab.directory / "runs" / "stable" / "layers.jsonl")
    steps = sorted({record["step"] for record in records})
    assert tables["step"] == steps
    of_block = lambda name, step, block: [record[name] for record in records
                                          if name in record and record["step"] == step and record.get("layer") == block]
    gather = {
        "gradient_norm": lambda values: math.sqrt(sum(value * value for value in values)),
        "stream_rms": lambda values: values[-1],
        "update_ratio": lambda values: sorted(values)[len(values) // 2],
        "max_attention_logit": lambda values: max(map(max, values)),
        "attention_entropy": lambda values: min(map(min, values)),
    }
    for name, how in gather.items():
        table = tables["tables"][name]
        assert [row for row in table["rows"] if row.isdigit()] == ["0", "1", "2"]
        for row, values in zip(table["rows"], table["values"]):
            if row.isdigit():
                for step, value in zip(steps, values):
                    assert value == pytest.approx(how(of_block(name, step, int(row))), rel=1e-15)
    assert "embedding" in tables["tables"]["stream_rms"]["rows"]
    assert browser.evaluate("document.querySelectorAll('svg.heat').length") == 5
    assert browser.evaluate("document.querySelectorAll('svg.heat path').length") > 20


def test_what_is_not_finite_is_shown_as_such(lab, browser):
    open_page(browser, lab.report("odd-numbers", "overflow"))
    step = lines_of(lab.directory / "runs" / "overflow" / "metrics.jsonl")[-1]["step"]
    assert browser.evaluate(f"figures[0].shown[0].odd.map(odd => [odd.from, odd.to, String(odd.value)])")[-1] == [
        step, step, "NaN"]
    browser.evaluate(f"figures[0].showValues({{}}, {step})")
    shown = browser.evaluate("document.getElementById('tooltip').innerText")
    assert f"step {step}" in shown and "NaN" in shown and "not finite" in shown


def test_names_are_texts_and_never_code(lab, browser):
    page = lab.report("names", f"odd/{ODD_NAME}", "stable")
    assert page.read_text().count("</script>") == 3  # data, dygraphs, ours
    open_page(browser, page)
    label = ODD_NAME.rsplit("/", 1)[1]
    assert browser.evaluate("document.getElementById('injected')") is None
    assert browser.evaluate("data.runs[0].label") == label
    assert cells(browser, "runs")[0][0][0] == label
    assert browser.evaluate("data.runs[0].path").endswith(ODD_NAME)
    assert browser.evaluate("document.title") == f"{label} and stable · Ballast report"


def test_a_corrupt_run_is_named_and_the_others_go_on(lab, browser):
    done = lab("report", "runs/stable", "runs/corrupt", "runs/absent", "-o", "corrupt.html")
    assert done.returncode == 0
    assert "runs/corrupt: left out: runs/corrupt/metrics.jsonl:4:" in done.stderr
    assert "runs/absent: left out: no such run directory" in done.stderr
    open_page(browser, lab.directory / "corrupt.html")
    assert browser.evaluate("data.runs.map(run => run.label)") == ["stable"]
    box = browser.evaluate("document.getElementById('unreadable').innerText")
    assert "metrics.jsonl:4:" in box and "runs/absent" in box


def test_a_sweep_has_its_curves(lab, browser):
    names = [f"{placement}-{lr}" for placement in ("pre", "post") for lr in ("0.001", "0.01", "0.1")]
    open_page(browser, lab.report("sweep", *names))
    rows = cells(browser, "rates")
    assert [row[0][0] for row in rows] == ["pre", "post"]
    for placement, row in zip(("pre", "post"), rows):
        losses = []
        for lr in ("0.001", "0.01", "0.1"):
            run = lab.directory / "runs" / f"{placement}-{lr}"
            start = lines_of(run / "metrics.jsonl")[0]["loss"]
            losses.append(min(json.loads((run / "summary.json").read_text())["final_val_loss"], start))
        points = browser.evaluate(f"data.rates.curves.find(curve => curve.label === '{placement}').points")
        assert [point["loss"] for point in points] == losses
        assert float(row[3][1]) == pytest.approx(sum(losses) / 3 - min(losses))
    drawn = browser.evaluate(
        "Array.from({length: rateChart.graph.numRows()}, (_, row) => [0, 1, 2].map(column => rateChart.graph.getValue(row, column)))")
    assert [row[0] for row in drawn] == [0.001, 0.01, 0.1]
    assert all(row[1] and row[2] for row in drawn)
    assert browser.evaluate("rateChart.graph.layout_.points.flat().every(point => point.x >= 0 && point.x <= 1 && point.y >= 0)")
    differences = browser.evaluate("data.differences.map(row => row.key)")
    assert differences == ["name", "optimizer.lr"] or "model.norm.placement" in differences


def test_a_run_of_many_steps_is_drawn_in_groups_and_says_so(lab, browser):
    run = lab.directory / "runs" / "many"
    shutil.copytree(lab.directory / "runs" / "stable", run)
    records = lines_of(run / "metrics.jsonl")
    values = np.random.default_rng(3).normal(3, 0.5, 25_000)
    with (run / "metrics.jsonl").open("w") as file:
        for step, value in enumerate(values, 1):
            file.write(json.dumps(records[0] | {"step": step, "loss": "NaN" if step == 5000 else value}) + "\n")
    open_page(browser, lab.report("many", "many"))
    assert browser.evaluate("data.runs[0].steps_a_point") == 3
    column = browser.evaluate("data.runs[0].columns.loss")
    groups = [values[i:i + 3] for i in range(0, len(values), 3)]
    odd = 4999 // 3
    assert column["middle"][odd] == "NaN"
    for i, group in enumerate(groups):
        if i != odd:
            assert [column["low"][i], column["high"][i]] == [group.min(), group.max()]
            assert column["middle"][i] == pytest.approx(group.mean(), rel=1e-14)
    assert "a point is the mean of 3 consecutive ones" in browser.evaluate("document.querySelector('figcaption').innerText")
    shutil.rmtree(run)


@pytest.mark.parametrize("view", [{}, {"dark": True}, {"width": 375, "height": 812}], ids=["light", "dark", "phone"])
def test_pages_fit_their_screen(lab, browser, view):
    for runs in (("stable", "overflow", "bare", "unfinished"), ("bare",), (f"odd/{ODD_NAME}",)):
        open_page(browser, lab.report("views", *runs), **view)
        assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert browser.evaluate("document.querySelectorAll('.plot canvas').length") > 8
        ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground != "rgb(255, 255, 255)") == view.get("dark", False)


def test_paper_is_light_and_has_everything(lab, browser, tmp_path):
    open_page(browser, lab.report("paper", "stable", "overflow"), dark=True)
    browser.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate("Array.from(document.querySelectorAll('.case details')).every(details => details.open)")
    assert browser.evaluate("getComputedStyle(document.getElementById('controls')).display") == "none"
    right = "Math.max(...Array.from(document.querySelectorAll('canvas, svg, table'), part => part.getBoundingClientRect().right))"
    assert browser.evaluate(right) <= 700
    browser.call("Emulation.setEmulatedMedia", media="")
    browser.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert browser.evaluate("Array.from(document.querySelectorAll('.case details')).some(details => !details.open)")
    browser.pdf(tmp_path / "paper.pdf")
    assert (tmp_path / "paper.pdf").read_bytes().startswith(b"%PDF")
    assert browser.complaints() == []


def test_controls_and_mouse(lab, browser):
    open_page(browser, lab.report("controls", "stable", "bare"))
    box = browser.evaluate("(() => { document.querySelector('.plot').scrollIntoView({block: 'center'});"
                           "const box = document.querySelector('.plot').getBoundingClientRect();"
                           "return [box.left, box.top, box.width, box.height]; })()")
    mouse = lambda kind, x, y, **more: browser.call("Input.dispatchMouseEvent", type=kind, x=box[0] + x * box[2],
                                                    y=box[1] + y * box[3], **more)
    mouse("mouseMoved", 0.5, 0.5)
    shown = browser.evaluate("document.getElementById('tooltip').innerText")
    step = int(shown.split()[1])
    records = {run: lines_of(lab.directory / "runs" / run / "metrics.jsonl") for run in ("stable", "bare")}
    for run in records:
        assert f"{records[run][step - 1]['loss']:.4f}".rstrip("0")[:5] in shown
    mouse("mousePressed", 0.3, 0.5, button="left", clickCount=1)
    mouse("mouseMoved", 0.5, 0.5, button="left", buttons=1)
    mouse("mouseMoved", 0.6, 0.5, button="left", buttons=1)
    mouse("mouseReleased", 0.6, 0.5, button="left", clickCount=1)
    windows = browser.evaluate("figures.filter(figure => figure.graph).map(figure => figure.graph.xAxisRange())")
    assert len(windows) > 8 and all(window == windows[0] for window in windows)
    assert 5 < windows[0][0] < windows[0][1] < 30
    browser.evaluate("document.getElementById('all-steps').click()")
    assert browser.evaluate("state.window") is None
    for box_id in ("raw", "log-loss", "log-step"):
        browser.evaluate(f"document.getElementById('{box_id}').click()")
    assert browser.evaluate("[state.raw, state.logLoss, state.logStep]") == [False, True, True]
    assert browser.evaluate("figures[0].graph.layout_.points.flat().some(point => point.x >= 0 && point.x <= 1 && point.y > 0)")
    # Marks of events lie where the lines have their steps.
    browser.evaluate("figures[0].graph.updateOptions({})")
    distance = browser.evaluate("Math.max(...figures[0].graph.layout_.points.flat().map(point => Math.abs(point.canvasx "
                                "- figures[0].placeOf(point.xval, figures[0].graph.plotter_.area, figures[0].graph))))")
    assert distance < 0.01
    browser.evaluate("document.querySelector('#runs input').click()")
    assert browser.evaluate("new Set(figures[0].shown.map(line => line.run.label)).has('stable')") is False
    assert browser.complaints() == []
