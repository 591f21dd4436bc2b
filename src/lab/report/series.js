// The records of the runs as series of numbers.

/** A statistic of a run over its steps: {step, middle, low, high}. `low` and `high` are there for groups of steps. */
function seriesOf(run, name) {
    const column = run.columns[name];
    if (!column) return null;
    const numbers = (values) => values.map(numberOf);
    if (Array.isArray(column)) return {step: run.columns.step, middle: numbers(column)};
    return {step: run.columns.step, middle: numbers(column.middle), low: numbers(column.low), high: numbers(column.high)};
}

/** The same of a statistic of the layers, over all of them: `choose` is Math.max or Math.min. */
function layerSeriesOf(run, name, choose) {
    const table = run.layers.tables[name];
    if (!table) return null;
    const middle = run.layers.step.map((_, probe) => {
        let chosen = null;
        for (const row of table.values) {
            const value = numberOf(row[probe]);
            if (value === null) continue;
            if (Number.isNaN(value)) return value;
            chosen = chosen === null ? value : choose(chosen, value);
        }
        return chosen;
    });
    return {step: run.layers.step, middle};
}

/** Whether there is a number in the series. */
function hasValues(series) {
    return series !== null && series.middle.some((value) => value !== null);
}

/**
 * Exponential average over about `span` steps, without the bias towards its start. What is not finite is left out and
 * has no average.
 */
function smoothed(series, span) {
    let sum = 0;
    let weight = 0;
    let last = null;
    return series.middle.map((value, i) => {
        if (value === null) return null;
        if (!Number.isFinite(value)) return NaN;
        const step = series.step[i];
        const keep = Math.pow(1 - 2 / (span + 1), last === null ? 1 : Math.max(step - last, 1));
        last = step;
        sum = keep * sum + (1 - keep) * value;
        weight = keep * weight + 1 - keep;
        return sum / weight;
    });
}

/** The steps of all series, each once, in order. */
function unionOfSteps(all) {
    if (all.length === 1) return all[0];
    const steps = new Set();
    for (const list of all) for (const step of list) steps.add(step);
    return Array.from(steps).sort((a, b) => a - b);
}

/** Index of a step in a list in order, or -1. */
function indexOfStep(steps, step) {
    let begin = 0;
    let end = steps.length;
    while (begin < end) {
        const middle = (begin + end) >> 1;
        if (steps[middle] < step) begin = middle + 1;
        else end = middle;
    }
    return steps[begin] === step ? begin : -1;
}

/** Stretches of steps whose value is not finite: {from, to, value}. */
function oddStretches(series) {
    const found = [];
    series.middle.forEach((value, i) => {
        if (value === null || Number.isFinite(value)) return;
        const open = found[found.length - 1];
        if (open && open.end === i - 1 && Object.is(open.value, value)) {
            open.to = series.step[i];
            open.end = i;
        } else {
            found.push({from: series.step[i], to: series.step[i], value, end: i});
        }
    });
    return found;
}
