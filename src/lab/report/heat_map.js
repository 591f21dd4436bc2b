// Statistics of the blocks over the steps, as SVG: time from left to right, the depth of the network upwards.

const HEAT = {left: 84, right: 8, bottom: 22, top: 2, shades: 32};

/** The cells that no colour can show are hatched; the pattern stands once in the page. */
function oddPattern() {
    return svg("svg", {width: 0, height: 0, style: "position:absolute", "aria-hidden": "true"},
        svg("defs", {},
            svg("pattern", {id: "odd-cells", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)"},
                svg("rect", {width: 5, height: 5, fill: "#ffffff"}), svg("rect", {width: 2.5, height: 5, fill: "#d55e00"}))));
}

/**
 * A figure with a map for each run, all of one scale.
 *   title, caption, name (of the table), choose ("largest" or "smallest" of the probes that share a cell), runs
 */
class HeatMaps {
    constructor(options) {
        this.options = options;
        this.maps = el("div", {class: "maps"});
        this.scale = el("span", {class: "scale"});
        this.note = el("figcaption", {});
        this.element = el("figure", {}, el("div", {class: "head"}, el("h3", {}, options.title), this.scale), this.maps, this.note);
        this.drawings = [];
    }

    draw(state) {
        this.state = state;
        const runs = this.options.runs.filter((run) => state.visible[run.index]);
        const shown = runs.slice(0, HeatMaps.most);
        this.range = this.rangeOf(shown);
        this.maps.className = ["maps", "maps one", "maps two", "maps", "maps two"][shown.length] || "maps";
        this.steps = shown.reduce(([from, to], run) => [Math.min(from, run.layers.step[0]), Math.max(to, run.layers.step[run.layers.step.length - 1])], [Infinity, 0]);
        this.drawings = shown.map((run) => ({run, box: el("div", {})}));
        this.maps.replaceChildren(...this.drawings.map(({run, box}) => el("div", {},
            this.options.runs.length > 1 ? el("div", {class: "map-title"}, swatch(run.line), run.label) : null, box)));
        this.drawScale();
        this.left = runs.length - shown.length;
        this.redraw();
    }

    zoom() {
        this.redraw();
    }

    /** Lowest and highest finite value, and whether the scale is logarithmic. */
    rangeOf(runs) {
        let low = Infinity;
        let high = -Infinity;
        let odd = false;
        for (const run of runs) {
            for (const row of run.layers.tables[this.options.name].values) {
                for (const cell of row) {
                    const value = numberOf(cell);
                    if (value === null) continue;
                    if (!Number.isFinite(value)) odd = true;
                    else {
                        if (value < low) low = value;
                        if (value > high) high = value;
                    }
                }
            }
        }
        const scale = low > 0 && high / low > 20 ? "logarithmic" : low <= 0 && Math.max(-low, high) > 50 ? "inverse hyperbolic sine" : "";
        return {low, high, odd, scale};
    }

    shareOf(value) {
        const {low, high, scale} = this.range;
        if (high === low) return 0.5;
        const place = scale === "logarithmic" ? Math.log : scale ? Math.asinh : Number;
        return (place(value) - place(low)) / (place(high) - place(low));
    }

    drawScale() {
        const {low, high, scale, odd} = this.range;
        const colors = Array.from({length: 17}, (_, i) => viridis(i / 16)).join(", ");
        const parts = [];
        const text = (content) => el("span", {}, content);
        if (low <= high) parts.push(text(shortNumber(low, 3)), el("i", {style: `background: linear-gradient(to right, ${colors})`}), text(shortNumber(high, 3) + (scale ? `, ${scale}` : "")));
        if (odd) parts.push(svg("svg", {width: 14, height: 10}, svg("rect", {width: 14, height: 10, fill: "url(#odd-cells)"})), text("NaN or ∞"));
        this.scale.replaceChildren(...parts);
    }

    /** `width`: that of each map, if not that of its place. */
    redraw(width) {
        for (const drawing of this.drawings) {
            const space = width || drawing.box.clientWidth || 320;
            drawing.box.replaceChildren(this.map(drawing, space));
        }
        const size = this.drawings.reduce((most, drawing) => Math.max(most, drawing.size), 1);
        this.note.replaceChildren([
            this.options.caption,
            size > 1 ? `There are more probes than room: a cell is the ${this.options.choose} of up to ${size}.` : null,
            this.left > 0 ? `The first ${this.drawings.length} of ${this.drawings.length + this.left} runs are drawn; choose others in the table above.` : null,
        ].filter(Boolean).join(" "));
    }

    /** The probes of a run within the window, in groups that become one column of cells each: {probes, from, to}. */
    columns(run, width) {
        const steps = run.layers.step;
        const [from, to] = this.window();
        const inside = [];
        steps.forEach((step, i) => {
            if (step >= from && step <= to) inside.push(i);
        });
        const size = Math.max(1, Math.ceil(inside.length / Math.max(20, Math.floor(width / 3))));
        const groups = [];
        for (let i = 0; i < inside.length; i += size) groups.push({probes: inside.slice(i, i + size)});
        // A cell reaches to the next probe; the last one is as wide as the one before it.
        groups.forEach((group, i) => {
            group.from = steps[group.probes[0]];
            const next = groups[i + 1] ? steps[groups[i + 1].probes[0]] : group.from + (i > 0 ? groups[i - 1].to - groups[i - 1].from : 1);
            group.to = Math.max(next, group.from);
        });
        return {groups, size};
    }

    /** First and last step that all maps show. */
    window() {
        const [from, to] = this.state.window || this.steps;
        return [from, Math.max(to, from + 1)];
    }

    cell(row, group) {
        const choose = this.options.choose === "smallest" ? Math.min : Math.max;
        let chosen = null;
        for (const probe of group) {
            const value = numberOf(row[probe]);
            if (value === null) continue;
            if (!Number.isFinite(value)) return value;
            chosen = chosen === null ? value : choose(chosen, value);
        }
        return chosen;
    }

    map(drawing, width) {
        const {run} = drawing;
        const table = run.layers.tables[this.options.name];
        const inner = width - HEAT.left - HEAT.right;
        const {groups, size} = this.columns(run, inner);
        drawing.size = size;
        const count = table.rows.length;
        const rowHeight = Math.max(6, Math.min(20, Math.round(190 / count)));
        const height = count * rowHeight;
        const [from, to] = this.window();
        const place = (step) => HEAT.left + (Math.min(Math.max(step - from, 0), to - from) / (to - from)) * inner;
        const paths = new Map();
        const values = table.values.map((row) => groups.map((group) => this.cell(row, group.probes)));
        values.forEach((row, r) => {
            row.forEach((value, c) => {
                if (value === null) return;
                const shade = Number.isFinite(value) ? Math.round(this.shareOf(value) * (HEAT.shades - 1)) : "odd";
                const left = place(groups[c].from);
                // Neighbours overlap a little, or hairlines of the ground would show between them.
                const right = Math.max(Math.min(place(groups[c].to) + 0.4, HEAT.left + inner), left + 1);
                const piece = `M${left.toFixed(2)} ${HEAT.top + (count - 1 - r) * rowHeight}H${right.toFixed(2)}v${rowHeight}H${left.toFixed(2)}z`;
                paths.set(shade, (paths.get(shade) || "") + piece);
            });
        });
        const whole = height + HEAT.top + HEAT.bottom;
        const image = svg("svg", {class: "heat", width, height: whole, viewBox: `0 0 ${width} ${whole}`, role: "img",
            "aria-label": `${this.options.title}, ${run.label}`});
        image.append(svg("rect", {class: "frame", x: HEAT.left, y: HEAT.top, width: inner, height}));
        for (const [shade, d] of paths)
            image.append(shade === "odd" ? svg("path", {class: "odd", d}) : svg("path", {d, fill: viridis(shade / (HEAT.shades - 1))}));
        this.labelRows(image, table.rows, rowHeight);
        for (const step of roundTicks(from, to, inner / 80)) {
            const anchor = place(step) > HEAT.left + inner - 20 ? "end" : "middle";
            image.append(svg("text", {x: place(step), y: HEAT.top + height + 14, "text-anchor": anchor}, grouped(step)));
        }
        image.addEventListener("mousemove", (event) => {
            const box = image.getBoundingClientRect();
            const step = from + ((((event.clientX - box.left) * width) / box.width - HEAT.left) / inner) * (to - from);
            const row = count - 1 - Math.floor((((event.clientY - box.top) * width) / box.width - HEAT.top) / rowHeight);
            const column = groups.findIndex((group) => step >= group.from && step < Math.max(group.to, group.from + 1));
            if (column < 0 || row < 0 || row >= count) tooltip.hide();
            else this.showCell(event, run, table.rows[row], groups[column].probes, values[row][column]);
        });
        image.addEventListener("mouseleave", () => tooltip.hide());
        return image;
    }

    labelRows(image, rows, rowHeight) {
        const every = Math.ceil(12 / rowHeight);
        rows.forEach((name, i) => {
            const block = /^\d+$/.test(name);
            if (block && Number(name) % every !== 0) return;
            const y = HEAT.top + (rows.length - 1 - i) * rowHeight + rowHeight / 2;
            image.append(svg("text", {x: HEAT.left - 6, y, "text-anchor": "end", "dominant-baseline": "central"},
                block && name !== "0" ? name : rowName(name)));
        });
    }

    showCell(event, run, row, probes, value) {
        const first = run.layers.step[probes[0]];
        const last = run.layers.step[probes[probes.length - 1]];
        const when = first === last ? `step ${grouped(first)}` : `steps ${grouped(first)} to ${grouped(last)}, ${this.options.choose} of ${probes.length}`;
        tooltip.show(event.clientX, event.clientY, el("b", {}, `${rowName(row)}, ${when}`), tooltip.row(run.line, run.label, shortNumber(value, 5)));
    }
}
HeatMaps.most = 6;

/** "block 3", "final norm". */
function rowName(name) {
    return /^\d+$/.test(name) ? `block ${name}` : name.replace("_", " ");
}
