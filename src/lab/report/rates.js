// Final loss against learning rate.

class RateChart {
    constructor(data) {
        this.data = data;
        this.curves = data.rates.curves;
        this.plot = el("div", {class: "plot tall", role: "img", "aria-label": "Final loss against learning rate"});
        this.legend = el("div", {class: "legend"});
        this.element = el("figure", {},
            el("div", {class: "head"}, el("h3", {}, `Final loss (${this.losses()}, nats/token) against learning rate`), this.legend),
            this.plot,
            el("figcaption", {}, "Lines join the means of the runs of a learning rate, bands reach from the lowest to the highest. "
                + "✕: at least one run diverged. A run that ended early, or above the loss of its first step, counts with that."),
            this.table());
        this.plot.addEventListener("mouseleave", () => tooltip.hide());
    }

    table() {
        const row = (curve, i) => el("tr", {},
            el("td", {class: "run"}, el("div", {class: "map-title"}, swatch(i), nameSpan(curve.label || "all runs"))),
            ...this.best(curve).map((text) => el("td", {class: "number"}, text)),
            el("td", {class: "number", title: String(curve.sensitivity)},
                shortNumber(curve.sensitivity, 4) + (curve.standard_error === null ? "" : ` ± ${shortNumber(curve.standard_error, 2)}`)),
            el("td", {class: "number"}, `${curve.points.filter((point) => point.diverged).length} of ${curve.points.length}`));
        return el("div", {class: "scroll"}, el("table", {id: "rates"},
            el("thead", {}, el("tr", {}, el("th", {}, "Runs"), el("th", {class: "number"}, "Best loss"), el("th", {class: "number"}, "at learning rate"),
                el("th", {class: "number", title: "Mean over learning rates of min(final loss, loss at start) less the best, and its standard error over seeds: Wortsman et al., 2309.14322"}, "LR sensitivity"),
                el("th", {class: "number"}, "Diverged"))),
            el("tbody", {}, this.curves.map(row))));
    }

    /** What a final loss is, in the terms of sweep and compare. */
    losses() {
        const kinds = [data.rates.validation && "validation", data.rates.training && "mean of the last 5 % of steps"];
        return kinds.filter(Boolean).join(", or ") || "none made all its steps";
    }

    best(curve) {
        const means = this.means(curve);
        const best = means.reduce((a, b) => (b.mean < a.mean ? b : a));
        return [lossText(best.mean), shortNumber(best.lr, 3)];
    }

    /** The points of a curve by learning rate: {lr, mean, low, high, points}. */
    means(curve) {
        const found = new Map();
        for (const point of curve.points) {
            if (!found.has(point.lr)) found.set(point.lr, []);
            found.get(point.lr).push(point);
        }
        return Array.from(found, ([lr, points]) => {
            const losses = points.map((point) => numberOf(point.loss));
            return {lr, points, mean: losses.reduce((a, b) => a + b) / losses.length, low: Math.min(...losses), high: Math.max(...losses)};
        });
    }

    draw() {
        const curves = this.curves.map((curve) => new Map(this.means(curve).map((mean) => [mean.lr, mean])));
        const rates = unionOfSteps(curves.map((curve) => Array.from(curve.keys())));
        const rows = rates.map((lr) => [lr, ...curves.map((curve) => {
            const mean = curve.get(lr);
            return mean ? [mean.low, mean.mean, mean.high] : null;
        })]);
        this.legend.replaceChildren(...(this.curves.length < 2 ? [] : this.curves.map((curve, i) => el("span", {}, swatch(i), curve.label))));
        if (this.graph) this.graph.destroy();
        const margin = Math.pow(rates[rates.length - 1] / rates[0], 0.06);
        const point = (graph, name, context, x, y, color, size, row) => {
            const mean = curves[Number(name)].get(rates[row]);
            context.fillStyle = color;
            context.strokeStyle = color;
            if (mean && mean.points.some((one) => one.diverged)) {
                context.lineWidth = 2.2;
                context.beginPath();
                context.moveTo(x - 5, y - 5);
                context.lineTo(x + 5, y + 5);
                context.moveTo(x - 5, y + 5);
                context.lineTo(x + 5, y - 5);
                context.stroke();
            } else {
                context.beginPath();
                context.arc(x, y, 4, 0, 2 * Math.PI);
                context.fill();
            }
        };
        this.graph = new Dygraph(this.plot, rows, {
            labels: ["learning rate"].concat(this.curves.map((_, i) => String(i))),
            series: Object.fromEntries(this.curves.map((_, i) => [String(i), {color: lineStyle(i).color, strokePattern: lineStyle(i).dash}])),
            customBars: true,
            fillAlpha: 0.15,
            strokeWidth: 2,
            drawPoints: true,
            drawPointCallback: point,
            drawHighlightPointCallback: point,
            connectSeparatedPoints: true,
            legend: "never",
            labelsDiv: document.createElement("div"),
            dateWindow: [rates[0] / margin, rates[rates.length - 1] * margin],
            yRangePad: 18,
            animatedZooms: false,
            gridLineColor: GRID,
            axisLineColor: AXIS,
            gridLineWidth: 1,
            interactionModel: mouseOnly(),
            axes: {
                x: {logscale: true, axisLabelFormatter: (lr) => shortNumber(lr, 1), axisLabelWidth: 44, ticker: logTicks},
                y: {axisLabelFormatter: (value) => shortNumber(value, 3), axisLabelWidth: 52},
            },
            highlightCallback: (event, lr) => this.showValues(event, lr, curves),
            unhighlightCallback: () => tooltip.hide(),
        });
    }

    showValues(event, lr, curves) {
        const rows = [];
        curves.forEach((curve, i) => {
            const mean = curve.get(lr);
            if (!mean) return;
            const diverged = mean.points.filter((one) => one.diverged).length;
            let text = shortNumber(mean.mean, 5);
            if (mean.points.length > 1) text += ` (${mean.points.length} runs, ${shortNumber(mean.low)} to ${shortNumber(mean.high)})`;
            if (diverged > 0) text += `, ${diverged} diverged`;
            rows.push(tooltip.row(i, this.curves[i].label || "all runs", text));
        });
        tooltip.show(event.clientX || 0, event.clientY || 0, el("b", {}, `learning rate ${shortNumber(lr, 4)}`), rows);
    }
}
