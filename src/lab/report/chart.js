// Line charts over steps, by dygraphs.

const EVENT_SIGNS = {
    non_finite: "✕", divergence: "◆", stall: "▬", loss_spike: "▲", gradient_spike: "△", rewind: "↺", resume: "▸",
    interrupted: "■",
};

/** dygraphs' own way with the mouse; touches are left to the page, which scrolls. */
function mouseOnly() {
    const {touchstart, touchmove, touchend, ...model} = Dygraph.defaultInteractionModel;
    return model;
}

/**
 * A figure with a line for each run.
 *   title, caption, tall
 *   lines: [{run, kind, series}], `kind` being "steps" (thin, with its average), "points" or "line"
 *   logY: whether its axis is logarithmic; a function of the page's state
 *   events: kinds of events whose signs it shows
 *   ceiling: the highest value worth showing on a linear axis; a function of the lines
 */
class LineChart {
    constructor(options) {
        this.options = options;
        this.plot = el("div", {class: options.tall ? "plot tall" : "plot", role: "img", "aria-label": options.title});
        this.legend = el("div", {class: "legend"});
        this.note = el("figcaption", {});
        this.element = el("figure", {},
            el("div", {class: "head"}, el("h3", {}, options.title), this.legend), this.plot, this.note);
        this.graph = null;
        for (const line of options.lines) line.odd = oddStretches(line.series);
        this.plot.addEventListener("mouseleave", () => tooltip.hide());
    }

    /** Draws it anew: `state` is that of page.js. */
    draw(state) {
        this.state = state;
        this.shown = this.options.lines.filter((line) => state.visible[line.run.index]);
        this.steps = unionOfSteps(this.shown.map((line) => line.series.step));
        this.log = typeof this.options.logY === "function" ? this.options.logY(state) : Boolean(this.options.logY);
        this.columns = this.shown.flatMap((line) => this.columnsOf(line, state));
        if (this.graph) this.graph.destroy();
        this.graph = null;
        this.plot.replaceChildren();
        this.drawLegend();
        if (this.columns.length === 0 || this.steps.length === 0) {
            this.plot.append(el("p", {class: "muted"}, "No run is shown."));
            return;
        }
        const ceiling = this.ceiling();
        this.graph = new Dygraph(this.plot, this.rows(), {
            labels: ["step"].concat(this.columns.map((column) => column.name)),
            series: Object.fromEntries(this.columns.map((column) => [column.name, column.look])),
            customBars: this.bars,
            fillAlpha: 0.18,
            connectSeparatedPoints: true,
            legend: "never",
            labelsDiv: document.createElement("div"),
            logscale: this.log,
            valueRange: ceiling === null ? [null, null] : [null, ceiling],
            dateWindow: state.window,
            yRangePad: 18,
            xRangePad: state.logStep ? 0 : 4,
            animatedZooms: false,
            highlightCircleSize: 3.5,
            gridLineColor: GRID,
            axisLineColor: AXIS,
            gridLineWidth: 1,
            interactionModel: mouseOnly(),
            axes: {
                x: {logscale: state.logStep, axisLabelFormatter: (step) => (Number.isInteger(step) ? grouped(step) : ""), pixelsPerLabel: 60,
                    ...(state.logStep ? {ticker: logTicks} : {})},
                y: {...(this.log ? {ticker: logTicks} : {}), axisLabelFormatter: (value) => shortNumber(value, 3), axisLabelWidth: 52, pixelsPerLabel: 28},
            },
            underlayCallback: (context, area, graph) => this.drawMarks(context, area, graph),
            highlightCallback: (event, step) => this.showValues(event, step),
            unhighlightCallback: () => tooltip.hide(),
            zoomCallback: (from, to) => {
                const [first, last] = this.graph.xAxisExtremes();
                state.zoom(from <= first && to >= last ? null : [from, to]);
            },
        });
        this.drawNote(ceiling);
    }

    zoom(range) {
        if (this.graph) this.graph.updateOptions({dateWindow: range});
    }

    /** What dygraphs draws of a line: its values, its average, or both. */
    columnsOf(line, state) {
        const {color, dash} = lineStyle(line.run.line);
        const name = `${line.run.index} ${this.options.lines.indexOf(line)}`;
        const values = (middle, low, high) => ({steps: line.series.step, middle, low: low || middle, high: high || middle});
        const {middle, low, high} = line.series;
        if (line.kind === "points") {
            const look = {color, strokeWidth: 1.2, strokePattern: [3, 3], drawPoints: true, pointSize: 3};
            return [{name, line, look, values: values(middle)}];
        }
        const average = line.kind === "steps" && state.span > 1;
        const columns = [];
        if (!average || state.raw) {
            const look = {
                color: average ? withAlpha(color, middle.length > 2000 ? 0.16 : 0.32) : color,
                strokeWidth: average ? 1 : 1.5,
                strokePattern: average ? null : dash,
                highlightCircleSize: average ? 0 : 3.5,
                drawPoints: middle.length === 1,
                pointSize: 3,
            };
            columns.push({name, line, look, values: values(middle, low, high)});
        }
        if (average) {
            const look = {color, strokeWidth: this.shown.length > 16 ? 1.3 : 2, strokePattern: dash};
            columns.push({name: name + " average", line, look, values: values(smoothed(line.series, state.span)), average: true});
        }
        return columns;
    }

    /** Rows for dygraphs: null where a run has no value, NaN, which leaves a gap, for what is not finite. */
    rows() {
        this.bars = this.columns.some((column) => column.values.low !== column.values.middle);
        const rows = this.steps.map((step) => [step]);
        const drawn = (value) => (value === null || value === undefined ? null : Number.isFinite(value) && !(this.log && value <= 0) ? value : NaN);
        for (const {values} of this.columns) {
            let at = 0;
            for (const row of rows) {
                while (at < values.steps.length && values.steps[at] < row[0]) ++at;
                const there = values.steps[at] === row[0];
                const middle = there ? drawn(values.middle[at]) : null;
                if (this.bars) row.push(middle === null ? null : [drawn(values.low[at]), middle, drawn(values.high[at])]);
                else row.push(middle);
            }
        }
        return rows;
    }

    /** Where a linear axis ends, if some values lie far above what is worth looking at. */
    ceiling() {
        if (this.log || !this.options.ceiling) return null;
        const limit = this.options.ceiling(this.shown);
        let highest = -Infinity;
        for (const line of this.shown)
            for (const value of line.series.high || line.series.middle)
                if (Number.isFinite(value) && value > highest) highest = value;
        this.highest = highest;
        return limit > 0 && highest > 1.3 * limit ? limit : null;
    }

    /** Where a step lies in the plot; dygraphs' toDomXCoord does not know logarithmic axes. */
    placeOf(step, area, graph) {
        return area.x + graph.toPercentXCoord(step) * area.w;
    }

    /** Signs of events and of values that are not finite, along the upper edge. */
    drawMarks(context, area, graph) {
        context.save();
        context.font = "11px sans-serif";
        context.textAlign = "center";
        context.textBaseline = "middle";
        const within = (x) => x >= area.x - 1 && x <= area.x + area.w + 1;
        const seen = new Set();
        for (const line of this.shown) {
            if (seen.has(line.run)) continue;
            seen.add(line.run);
            const {color} = lineStyle(line.run.line);
            // Signs must not lie upon each other: those of the rarer events come first, the lines are all there.
            const taken = [];
            const spikes = (event) => event.kind.endsWith("_spike");
            const events = line.run.events.filter((event) => this.options.events.includes(event.kind));
            for (const event of [...events.filter((one) => !spikes(one)), ...events.filter(spikes)]) {
                const x = this.placeOf(Math.max(event.step, 1), area, graph);
                if (!within(x)) continue;
                context.strokeStyle = withAlpha(color, event.kind.endsWith("_spike") ? 0.18 : 0.7);
                context.setLineDash(event.kind.endsWith("_spike") ? [] : [4, 3]);
                context.beginPath();
                context.moveTo(x, area.y + 14);
                context.lineTo(x, area.y + area.h);
                context.stroke();
                context.fillStyle = color;
                if (taken.some((other) => Math.abs(other - x) < 9)) continue;
                context.fillText(EVENT_SIGNS[event.kind] || "•", x, area.y + 7);
                taken.push(x);
            }
        }
        context.setLineDash([]);
        for (const line of this.shown) {
            const {color} = lineStyle(line.run.line);
            for (const stretch of line.odd) {
                const from = Math.max(this.placeOf(stretch.from, area, graph), area.x);
                const to = Math.min(this.placeOf(stretch.to, area, graph), area.x + area.w);
                if (!within(from) || !within(to)) continue;
                context.fillStyle = color;
                context.fillRect(from - 1.5, area.y + 15, Math.max(to - from, 0) + 3, 3);
                const text = shortNumber(stretch.value);
                const left = from - 3 - context.measureText(text).width > area.x;
                context.textAlign = left ? "right" : "left";
                context.fillText(text, left ? from - 5 : to + 5, area.y + 18);
            }
        }
        context.restore();
    }

    /** What the shown runs have at a step. */
    valuesAt(step) {
        const found = [];
        for (const line of this.shown) {
            const at = indexOfStep(line.series.step, step);
            if (at < 0 || line.series.middle[at] === null) continue;
            const average = this.columns.find((column) => column.line === line && column.average);
            found.push({
                line, value: line.series.middle[at],
                low: line.series.low && line.series.low[at], high: line.series.high && line.series.high[at],
                average: average ? average.values.middle[at] : null,
            });
        }
        return found;
    }

    showValues(event, step) {
        const box = this.plot.getBoundingClientRect();
        const found = this.valuesAt(step);
        const most = 10;
        const height = event.clientY === undefined ? null : this.graph.toDataYCoord(event.clientY - box.top);
        const distance = ({value}) => (height === null || !Number.isFinite(value) ? -1 : Math.abs(value - height));
        const near = found.length > most ? found.slice().sort((a, b) => distance(a) - distance(b)).slice(0, most) : found;
        const rows = near.map(({line, value, low, high, average}) => {
            let text = shortNumber(value, 5);
            if (low !== null && low !== undefined && low !== high) text += ` (${shortNumber(low)} to ${shortNumber(high)})`;
            if (average !== null && Number.isFinite(average)) text += ` · average ${shortNumber(average, 4)}`;
            return tooltip.row(line.run.line, line.run.label + (line.suffix || ""), text);
        });
        if (found.length > near.length) rows.push(el("div", {class: "muted"}, `and ${found.length - near.length} more`));
        const happened = this.shown.filter((line, i) => this.shown.findIndex((other) => other.run === line.run) === i)
            .flatMap((line) => line.run.events.filter((one) => one.step === step && this.options.events.includes(one.kind))
                .map((one) => el("div", {}, `${EVENT_SIGNS[one.kind] || "•"} ${one.message}`)));
        const x = event.clientX === undefined ? box.left : event.clientX;
        const y = event.clientY === undefined ? box.top : event.clientY;
        tooltip.show(x, y, el("b", {}, `step ${grouped(step)}`), rows, happened);
    }

    drawLegend() {
        const runs = Array.from(new Set(this.shown.map((line) => line.run)));
        const most = 8;
        if (this.options.lines.every((line) => line.run === this.options.lines[0].run)) this.legend.replaceChildren();
        else if (this.state.groups) this.legend.replaceChildren(...this.state.groups.map((group, i) => el("span", {}, swatch(i), group)));
        else if (runs.length > most) this.legend.replaceChildren(el("span", {}, `${runs.length} runs; colours as in the table above`));
        else this.legend.replaceChildren(...runs.map((run) => el("span", {}, swatch(run.line), run.label)));
    }

    drawNote(ceiling) {
        const parts = [this.options.caption];
        if (this.options.tall && this.state.span > 1)
            parts.push(`${this.state.raw ? "Thin: each step. " : ""}Thick: exponential average over ${this.state.span} steps.`);
        for (const run of new Set(this.shown.filter((line) => line.series.low).map((line) => line.run)))
            parts.push(`${run.label}: ${grouped(run.recorded_steps)} steps; a point is the mean of ${run.steps_a_point} consecutive ones, the band reaches from their lowest to their highest.`);
        if (ceiling !== null) parts.push(`The axis ends at ${shortNumber(ceiling, 3)}; values go up to ${shortNumber(this.highest)} (a logarithmic axis shows them).`);
        const lost = this.log ? this.columns.reduce((sum, {values, average}) => sum + (average ? 0 : values.middle.filter((value) => value !== null && value <= 0).length), 0) : 0;
        if (lost > 0) parts.push(`Not on the logarithmic axis: ${grouped(lost)} ${lost === 1 ? "value" : "values"} at or below 0.`);
        const kinds = this.options.events.filter((kind) => this.shown.some((line) => line.run.events.some((event) => event.kind === kind)));
        if (kinds.length > 0) parts.push(kinds.map((kind) => `${EVENT_SIGNS[kind]} ${kind.replace("_", " ")}`).join("  "));
        this.note.replaceChildren(parts.filter(Boolean).join(" "));
    }
}
