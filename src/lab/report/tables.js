// Everything on the page that is text: the runs, their verdicts and evidence, configs and environments.

const VERDICTS = {
    stable: ["good", "✓"], spiky: ["warn", "▲"], stalled: ["warn", "▬"], interrupted: ["none", "■"], diverged: ["bad", "◆"],
    non_finite: ["bad", "✕"],
};

/** How a run ended, or where it stands, with a sign beside the colour. */
function verdictOf(run) {
    if (!run.summary) return {kind: "none", sign: "…", text: "no verdict yet"};
    const verdict = String(run.summary.verdict);
    const [kind, sign] = VERDICTS[verdict] || ["none", "?"];
    return {kind, sign, text: verdict.replace("_", " ")};
}

function verdictBadge(run) {
    const {kind, sign, text} = verdictOf(run);
    return el("span", {class: `verdict ${kind}`}, `${sign} ${text}`);
}

function numberCell(value, digits, text = (number) => shortNumber(number, digits)) {
    const none = value === null || value === undefined;
    return el("td", {class: "number", title: none ? null : String(value)}, none ? "–" : text(digits ? Number(value.toPrecision(digits)) : value));
}

/** A name that breaks into lines only when it is long. */
function nameSpan(name, title) {
    return el("span", {title, style: `min-width: ${Math.min(name.length, 24)}ch`}, name);
}

/** Losses stand below each other: all have three decimals. */
function lossText(loss) {
    return Number.isFinite(loss) && Math.abs(loss) < 1e4 ? loss.toFixed(3) : shortNumber(loss);
}

/** A member of the summary as a number; null when there is none. */
function summaryNumber(run, name) {
    const value = run.summary ? run.summary[name] : undefined;
    return value === undefined ? null : numberOf(value);
}

/** The last recorded loss, also of a run that has no summary yet. */
function lastLoss(run) {
    const loss = seriesOf(run, "loss").middle;
    return loss.length > 0 ? loss[loss.length - 1] : null;
}

/** All runs, a row each; `toggle(run, shown)` shows and hides them in the charts. */
function runTable(runs, toggle) {
    const head = [
        ["Run"], ["Verdict"], ["Steps", "number"], ["Final loss", "number"], ["Final val.", "number"], ["Best val.", "number"],
        ["Loss spikes", "number"], ["Tokens/s", "number"], ["Time", "number"],
    ];
    const rows = runs.map((run) => {
        const steps = run.columns.step.length > 0 ? run.columns.step[run.columns.step.length - 1] : 0;
        const name = nameSpan(run.label, run.path);
        const box = el("input", {type: "checkbox", checked: run.shown, "aria-label": `show ${run.label}`});
        const row = el("tr", {class: run.shown ? null : "hidden-run"},
            el("td", {class: "run"}, runs.length > 1 ? el("label", {}, box, swatch(run.line), name) : name),
            el("td", {}, verdictBadge(run)),
            el("td", {class: "number"}, steps === run.planned_steps ? grouped(steps) : `${grouped(steps)} of ${grouped(run.planned_steps)}`),
            numberCell(run.summary ? summaryNumber(run, "final_loss") : lastLoss(run), null, lossText),
            numberCell(summaryNumber(run, "final_val_loss"), null, lossText),
            numberCell(summaryNumber(run, "best_val_loss"), null, lossText),
            numberCell(summaryNumber(run, "loss_spikes")),
            numberCell(summaryNumber(run, "tokens_per_second"), 3, grouped),
            el("td", {class: "number"}, duration(summaryNumber(run, "seconds"))));
        box.addEventListener("change", () => {
            row.className = box.checked ? "" : "hidden-run";
            toggle(run, box.checked);
        });
        return row;
    });
    return el("div", {class: runs.length > 12 ? "scroll long" : "scroll"}, el("table", {class: "wide", id: "runs"},
        el("thead", {}, el("tr", {}, head.map(([name, kind]) => el("th", {class: kind}, name)))), el("tbody", {}, rows)));
}

function unreadableBox(unreadable) {
    if (unreadable.length === 0) return null;
    return el("div", {class: "alert", id: "unreadable"},
        el("strong", {}, unreadable.length === 1 ? "One run could not be read and is not on this page:" : `${unreadable.length} runs could not be read and are not on this page:`),
        el("ul", {}, unreadable.map((run) => el("li", {}, `${run.path}: ${run.problem}`))));
}

function causeBox(cause, number) {
    const percent = Math.round(100 * cause.confidence);
    return el("div", {class: "cause"},
        el("div", {}, `${number}. ${cause.meaning}`),
        el("div", {class: "muted"}, el("span", {class: "confidence", "aria-hidden": "true"}, el("i", {style: `width:${percent}%`})),
            `confidence ${percent} % · `, el("code", {}, cause.cause)),
        el("ul", {}, cause.evidence.map((line) => el("li", {}, line))),
        el("p", {}, `Try: ${cause.advice}`),
        cause.source ? el("p", {class: "muted"}, `Source: ${cause.source}`) : null);
}

function eventTable(run, goTo) {
    return el("div", {class: "scroll"}, el("table", {class: "events"},
        el("thead", {}, el("tr", {}, el("th", {class: "number"}, "Step"), el("th", {}, "Event"), el("th", {}, "What happened"), el("th", {class: "number"}, "Batch"), el("th", {}))),
        el("tbody", {}, run.events.map((event) => el("tr", {},
            el("td", {class: "number"}, grouped(event.step)),
            el("td", {}, `${EVENT_SIGNS[event.kind] || "•"} ${event.kind.replace("_", " ")}`),
            el("td", {}, event.message),
            el("td", {class: "number"}, event.batch === undefined ? "–" : grouped(event.batch)),
            el("td", {}, el("button", {type: "button", onclick: () => goTo(event.step)}, "show")))))));
}

/** What a run's record says about it; a stable run without events needs one line. */
function caseOf(run, goTo) {
    const summary = run.summary || {};
    const children = [el("h3", {}, run.label, verdictBadge(run))];
    if (!run.summary) children.push(el("p", {}, "The run has no summary: it goes on, or was killed."));
    if (summary.reason) children.push(el("p", {}, summary.reason));
    if (summary.onset) children.push(el("p", {}, `Began: ${summary.onset}`));
    run.causes.forEach((cause, i) => children.push(causeBox(cause, i + 1)));
    const trouble = run.events.some((event) => !["gradient_spike", "resume", "interrupted"].includes(event.kind));
    if (run.causes.length === 0)
        children.push(el("p", {class: "muted"}, trouble ? "No known signature is in the record." : run.events.length > 0 ? "Nothing but spikes of the gradient norm, which clipping is there for, and interruptions." : "Nothing happened."));
    if (run.events.length > 0)
        children.push(el("details", {}, el("summary", {}, run.events.length === 1 ? "1 event" : `${run.events.length} events`), eventTable(run, goTo)));
    return el("div", {class: `case ${verdictOf(run).kind}`}, children);
}

/** A value of a config, which is JSON, as text: strings without their quotes. */
function plainValue(json) {
    try {
        const value = JSON.parse(json);
        return typeof value === "string" ? value : json;
    } catch {
        return json;
    }
}

/** Keys and what each run has for them; many runs stand one below the other. `rows`: {key, values}. */
function comparisonTable(id, names, rows) {
    const cell = (value) => el("td", {class: "value"}, value === undefined || value === null ? "–" : String(value));
    const table = names.length <= 6
        ? [el("thead", {}, el("tr", {}, el("th", {}, "Key"), names.map((name) => el("th", {}, name)))),
            el("tbody", {}, rows.map(({key, values}) => el("tr", {}, el("th", {}, el("code", {}, key)), values.map(cell))))]
        : [el("thead", {}, el("tr", {}, el("th", {}, "Run"), rows.map(({key}) => el("th", {}, el("code", {}, key))))),
            el("tbody", {}, names.map((name, i) => el("tr", {}, el("th", {}, name), rows.map(({values}) => cell(values[i])))))];
    return el("div", {class: "scroll"}, el("table", {id}, table));
}

function configSection(data) {
    const alone = data.runs.length === 1;
    const text = alone ? "What the run sets other than the defaults." : "The keys in which the runs differ; everything else is the same.";
    const rows = data.differences.map(({key, values, default: standard}) => ({key, values: (alone ? [standard, ...values] : values).map(plainValue)}));
    const names = alone ? ["default", data.runs[0].label] : data.runs.map((run) => run.label);
    return [
        el("h2", {id: "config"}, alone ? "Config" : "Config differences"), el("p", {class: "muted"}, text),
        rows.length > 0 ? comparisonTable("differences", names, rows) : el("p", {}, alone ? "All keys have their defaults." : "The configs are the same."),
        data.runs.map((run) => el("details", {}, el("summary", {}, `All keys of ${run.label}`), el("pre", {}, run.config))),
    ];
}

/** The facts that all runs share once, those that differ beside each other. */
function environmentSection(data) {
    const keys = Array.from(new Set(data.runs.flatMap((run) => Object.keys(run.environment))));
    const rows = keys.map((key) => ({key, values: data.runs.map((run) => run.environment[key])}));
    const same = rows.filter(({values}) => values.every((value) => value === values[0]));
    const different = rows.filter((row) => !same.includes(row));
    return [
        el("h2", {id: "environment"}, "Environment"),
        different.length > 0 ? [el("p", {class: "muted"}, "What differs between the runs:"),
            comparisonTable("environment-differences", data.runs.map((run) => run.label), different)] : null,
        same.length > 0 ? comparisonTable("environment-shared", [data.runs.length > 1 ? "all runs" : data.runs[0].label],
            same.map(({key, values}) => ({key, values: values.slice(0, 1)}))) : null,
    ];
}
