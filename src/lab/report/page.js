// The page: what stands where, and the controls that all charts share.

const data = JSON.parse(document.getElementById("data").textContent);
data.runs.forEach((run, index) => Object.assign(run, {index, shown: true, line: index}));

const state = {
    span: 1, // of the average, in steps
    raw: data.runs.length <= 4,
    logLoss: false,
    logStep: false,
    window: null, // [first, last] step that is shown; null: all
    visible: data.runs.map(() => true),
    zoom: setWindow,
    groups: groupRuns(), // what the colours stand for, if not for single runs
};

const figures = []; // LineChart and HeatMaps, which share the state
let rateChart = null;

const TROUBLE = ["non_finite", "divergence", "stall", "rewind", "resume", "interrupted"];

/** Many runs of a few curves have the colours of their curves: a sweep of two placements is two bundles of lines. */
function groupRuns() {
    const curves = data.rates.curves;
    const all = curves.reduce((sum, curve) => sum + curve.points.length, 0);
    if (data.runs.length <= 8 || all < data.runs.length || curves.length < 2 || curves.length > PALETTE.length) return null;
    curves.forEach((curve, i) => curve.points.forEach((point) => (data.runs[point.run].line = i)));
    return curves.map((curve) => curve.label);
}

function setWindow(range) {
    state.window = range;
    for (const figure of figures) figure.zoom(range);
    showWindow();
}

function redraw() {
    for (const figure of figures) figure.draw(state);
}

// ---- Figures ----

function meaningOf(name) {
    const found = data.meanings[name];
    return found ? found.meaning : "";
}

/** A chart of one or several statistics of the steps; null when no run has any. */
function stepChart(title, name, options = {}) {
    const lines = data.runs.map((run) => ({run, kind: options.kind || "steps", series: seriesOf(run, name)})).filter((line) => hasValues(line.series));
    if (lines.length === 0) return null;
    return lineChart({title, caption: meaningOf(name), lines, ...options});
}

function layerChart(title, name, choose, caption, options = {}) {
    const lines = data.runs.map((run) => ({run, kind: "line", series: layerSeriesOf(run, name, choose)})).filter((line) => hasValues(line.series));
    if (lines.length === 0) return null;
    return lineChart({title, caption, lines, ...options});
}

function lineChart(options) {
    const chart = new LineChart({events: TROUBLE, ...options});
    figures.push(chart);
    return chart.element;
}

function heatMaps(title, name, choose, caption) {
    const runs = data.runs.filter((run) => run.layers.tables[name]);
    if (runs.length === 0) return null;
    const maps = new HeatMaps({title, name, choose, caption, runs});
    figures.push(maps);
    return maps.element;
}

/** A heading with what follows it, unless there is nothing. */
function section(title, id, ...content) {
    const there = content.flat().filter(Boolean);
    return there.length > 0 ? [el("h2", {id}, title), ...there] : [];
}

function pair(...content) {
    const there = content.filter(Boolean);
    return there.length > 0 ? el("div", {class: "pair"}, there) : null;
}

function lossChart() {
    const lines = data.runs.flatMap((run) => [
        {run, kind: "steps", series: seriesOf(run, "loss")},
        {run, kind: "points", series: seriesOf(run, "val_loss"), suffix: ", validation"},
    ]).filter((line) => hasValues(line.series));
    if (lines.length === 0) return el("p", {class: "muted"}, "No step is recorded yet.");
    const validation = lines.some((line) => line.kind === "points");
    return lineChart({
        title: "Loss (nats/token)",
        tall: true,
        lines,
        caption: validation ? "Dots: validation." : "",
        logY: (shared) => shared.logLoss,
        events: ["loss_spike", ...TROUBLE],
        // The first losses are where the runs come from; far above them only a logarithmic axis has something to say.
        ceiling: (shown) => Math.max(...shown.filter((line) => line.kind === "steps").map((line) => line.series.middle.find(Number.isFinite) || 0)) * 1.15,
    });
}

function build() {
    const runs = data.runs;
    const names = runs.map((run) => run.label);
    const title = runs.length <= 3 ? [names.slice(0, -1).join(", "), names[names.length - 1]].filter(Boolean).join(" and ") : `${runs.length} runs`;
    document.title = `${title} · Ballast report`;
    const counts = new Map();
    for (const run of runs) counts.set(verdictOf(run).text, (counts.get(verdictOf(run).text) || 0) + 1);
    document.getElementById("top").append(
        el("h1", {}, title),
        el("p", {class: "muted"}, runs.length === 1 ? el("span", {class: "path"}, runs[0].path) : Array.from(counts, ([text, count]) => `${count} ${text}`).join(", ")));

    const page = document.getElementById("page");
    const parts = [
        unreadableBox(data.unreadable),
        runTable(runs, (run, shown) => {
            run.shown = shown;
            state.visible[run.index] = shown;
            redraw();
        }),
        document.getElementById("controls"),
        section("Loss", "loss", lossChart()),
    ];
    if (data.rates.curves.length > 0) {
        rateChart = new RateChart(data);
        parts.push(section("Learning rate and final loss", "learning-rate", rateChart.element));
    }
    parts.push(
        section("Verdict and evidence", "evidence", evidence()),
        section("Gradients", "gradients",
            stepChart("Gradient norm", "gradient_norm", {logY: true, events: ["gradient_spike", ...TROUBLE], caption: "Norm of the whole gradient, before clipping."}),
            heatMaps("Gradient norm by block", "gradient_norm", "largest", "Norm over all parameters of a block, before clipping.")),
        section("Residual stream", "stream",
            heatMaps("Stream size by block", "stream_rms", "largest", "Root mean square of the residual stream behind each block.")),
        section("Updates", "updates",
            pair(stepChart("Update ratio", "update_ratio", {logY: true}), stepChart("Learning rate", "lr", {kind: "line"})),
            heatMaps("Update ratio by block", "update_ratio", "largest", "Median over the parameters of a block of RMS of the update over RMS of the parameter.")),
        section("Attention", "attention",
            pair(layerChart("Largest attention logit", "max_attention_logit", Math.max, "Largest scaled logit of all blocks and heads, in nats.", {logY: true}),
                layerChart("Attention entropy", "attention_entropy", Math.min, "Lowest mean entropy of all blocks and heads, in nats; near 0, a head looks at one token.")),
            heatMaps("Largest attention logit by block", "max_attention_logit", "largest", "Of its heads, in nats."),
            heatMaps("Attention entropy by block", "attention_entropy", "smallest", "Of its heads the lowest, in nats.")),
        section("Output logits and parameters", "logits",
            pair(stepChart("Mean log Z (nats)", "mean_log_z"), stepChart("Largest output logit", "max_logit", {logY: true})),
            pair(stepChart("Parameter norm", "parameter_norm", {kind: "line", logY: true}), stepChart("Tokens per second", "tokens_per_second"))),
        configSection(data),
        environmentSection(data),
        el("footer", {class: "muted"}, `Written by ballast report ${data.version}; charts by dygraphs (MIT licence). `
            + "Drag over a chart to zoom all of them along the steps, double-click to see everything again."));
    page.replaceChildren(...parts.flat(Infinity).filter(Boolean));
    document.body.append(oddPattern());
    buildControls();
}

/** The runs that have something to say, the worst first; the others in a word. */
function evidence() {
    const rank = {bad: 0, warn: 1, none: 2, good: 3};
    const eventful = data.runs.filter((run) => data.runs.length === 1 || verdictOf(run).kind !== "good" || run.causes.length > 0);
    eventful.sort((a, b) => rank[verdictOf(a).kind] - rank[verdictOf(b).kind]);
    const calm = data.runs.filter((run) => !eventful.includes(run));
    const goTo = (step) => {
        setWindow([Math.max(1, step - 50), step + 50]);
        document.getElementById("loss").scrollIntoView({behavior: "smooth"});
    };
    const most = 12;
    const cases = eventful.map((run) => caseOf(run, goTo));
    const parts = cases.slice(0, most);
    if (cases.length > most)
        parts.push(el("details", {}, el("summary", {}, `${cases.length - most} more runs with a verdict other than stable`), cases.slice(most)));
    if (calm.length > 0)
        parts.push(el("details", {}, el("summary", {}, `Stable: ${calm.map((run) => run.label).join(", ")}`), calm.map((run) => caseOf(run, goTo))));
    return parts;
}

// ---- Controls ----

const SPANS = [1, 3, 5, 10, 20, 50, 100, 200, 500, 1000];

function longestRun() {
    return data.runs.reduce((most, run) => Math.max(most, run.recorded_steps), 0);
}

function defaultSpan() {
    const steps = longestRun();
    const wanted = Math.max(steps / 100, Math.min(steps / 25, 10));
    return SPANS.reduce((best, span) => (span <= wanted ? span : best), 1);
}

let showWindow = () => {};

function buildControls() {
    const steps = data.runs.flatMap((run) => run.columns.step);
    const bar = document.getElementById("controls");
    if (steps.length === 0) return;
    bar.hidden = false;
    const first = steps.reduce((a, b) => Math.min(a, b));
    const last = steps.reduce((a, b) => Math.max(a, b));

    state.span = defaultSpan();
    const spanText = el("output", {});
    const showSpan = (span) => spanText.replaceChildren(span === 1 ? "off" : `${span} steps`);
    const slider = el("input", {
        type: "range", min: 0, max: SPANS.length - 1, step: 1, value: SPANS.indexOf(state.span), id: "span",
        oninput: () => showSpan(SPANS[slider.value]),
        onchange: () => {
            state.span = SPANS[slider.value];
            redraw();
        },
    });
    showSpan(state.span);

    const box = (text, name, id) => {
        const input = el("input", {type: "checkbox", id, checked: state[name], onchange: () => {
            state[name] = input.checked;
            redraw();
        }});
        return el("label", {}, input, text);
    };
    const from = el("input", {type: "number", min: first, max: last, id: "from", "aria-label": "first step"});
    const to = el("input", {type: "number", min: first, max: last, id: "to", "aria-label": "last step"});
    const apply = () => {
        const begin = Math.max(first, Number(from.value) || first);
        const end = Math.min(last, Number(to.value) || last);
        if (begin < end) setWindow(begin === first && end === last ? null : [begin, end]);
        else showWindow();
    };
    from.addEventListener("change", apply);
    to.addEventListener("change", apply);
    showWindow = () => {
        const [begin, end] = state.window || [first, last];
        from.value = Math.round(begin);
        to.value = Math.round(end);
    };
    showWindow();
    bar.append(el("label", {}, "Average", slider, spanText), box("each step", "raw", "raw"), box("log loss", "logLoss", "log-loss"),
        box("log steps", "logStep", "log-step"), el("label", {}, "Steps", from), el("label", {}, "to", to),
        el("button", {type: "button", id: "all-steps", onclick: () => setWindow(null)}, "All steps"));
}

// ---- Drawing ----

/** The first figures at once, the rest between what the browser has to do. */
function drawAll() {
    const waiting = [...(rateChart ? [rateChart] : []), ...figures];
    const next = () => {
        const figure = waiting.shift();
        if (!figure) {
            document.body.dataset.drawn = Math.round(performance.now());
            return;
        }
        figure.draw(state);
        setTimeout(next, 0);
    };
    next();
}

let resizing = 0;
window.addEventListener("resize", () => {
    clearTimeout(resizing);
    resizing = setTimeout(() => figures.forEach((figure) => figure instanceof HeatMaps && figure.redraw()), 120);
});

// On paper everything is open, and as wide as a sheet of A4 between its margins. Canvases cannot be drawn anew while
// the browser prints: they are scaled.
const PAPER_WIDTH = 680;
const HALF_PAPER = (PAPER_WIDTH - 28) / 2;
let closed = [];
window.addEventListener("beforeprint", () => {
    closed = Array.from(document.querySelectorAll(".case details:not([open])"));
    for (const details of closed) details.open = true;
    for (const plot of document.querySelectorAll(".plot"))
        plot.style.setProperty("--on-paper", Math.min(1, (plot.closest(".pair") ? HALF_PAPER : PAPER_WIDTH) / plot.clientWidth));
    for (const figure of figures)
        if (figure instanceof HeatMaps) figure.redraw(figure.drawings.length === 1 ? PAPER_WIDTH : HALF_PAPER);
});
window.addEventListener("afterprint", () => {
    for (const details of closed) details.open = false;
    for (const figure of figures) if (figure instanceof HeatMaps) figure.redraw();
});

build();
drawAll();
