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
        this.maps.className = shown.length === 1 ? "maps one" : "maps";
        this.drawings = shown.map((run) => ({run, box: el("div", {})}));
        this.maps.replaceChildren(...this.drawings.map(({run, box}) => el("div", {},
            this.options.runs.length > 1 ? el("div", {class: "map-title"}, swatch(run.index), run.label) : null, box)));
        this.drawScale();
        const left = runs.length - shown.length;
        this.note.replaceChildren([this.options.caption, left > 0 ? `Of ${runs.length} runs the first ${shown.length} are drawn; choose others in the table above.` : null]
            .filter(Boolean).join(" "));
        this.redraw();
    }

    zoom() {
        this.redraw();
    }

    resize(width) {
        this.redraw(width);
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
        return {low, high, odd, log: low > 0 && high / low > 20};
    }

    shareOf(value) {
        const {low, high, log} = this.range;
        if (high === low) return 0.5;
        return log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
    }

    drawScale() {
        const {low, high, log, odd} = this.range;
        const colors = Array.from({length: 17}, (_, i) => viridis(i / 16)).join(", ");
        const parts = [];
        if (low <= high) parts.push(shortNumber(low, 3), el("i", {style: `background: linear-gradient(to right, ${colors})`}), shortNumber(high, 3), log ? "(logarithmic)" : "");
        if (odd) parts.push(svg("svg", {width: 14, height: 10}, svg("rect", {width: 14, height: 10, fill: "url(#odd-cells)"})), "NaN or ∞");
        this.scale.replaceChildren(...parts);
    }

    redraw(width) {
        for (const drawing of this.drawings) {
            const space = (this.drawings.length === 1 && width) || drawing.box.clientWidth || 320;
            drawing.box.replaceChildren(this.map(drawing.run, space));
        }
    }

    /** The probes of a run within the window, in groups that become one column of cells each. */
    columns(run, width) {
        const steps = run.layers.step;
        const [from, to] = this.state.window || [steps[0], steps[steps.length - 1]];
        const inside = [];
        steps.forEach((step, i) => {
            if (step >= from && step <= to) inside.push(i);
        });
        const size = Math.max(1, Math.ceil(inside.length / Math.max(20, Math.floor(width / 3))));
        const groups = [];
        for (let i = 0; i < inside.length; i += size) groups.push(inside.slice(i, i + size));
        return {groups, size};
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

    map(run, width) {
        const table = run.layers.tables[this.options.name];
        const {groups, size} = this.columns(run, width - HEAT.left - HEAT.right);
        const count = table.rows.length;
        const rowHeight = Math.max(6, Math.min(20, Math.round(190 / count)));
        const height = count * rowHeight;
        const inner = width - HEAT.left - HEAT.right;
        const cellWidth = inner / Math.max(groups.length, 1);
        const paths = new Map();
        const values = table.values.map((row) => groups.map((group) => this.cell(row, group)));
        values.forEach((row, r) => {
            row.forEach((value, c) => {
                if (value === null) return;
                const shade = Number.isFinite(value) ? Math.round(this.shareOf(value) * (HEAT.shades - 1)) : "odd";
                const x = HEAT.left + c * cellWidth;
                // Neighbours overlap a little, or hairlines of the ground would show between them.
                const piece = `M${x.toFixed(2)} ${HEAT.top + (count - 1 - r) * rowHeight}h${(Math.min(cellWidth + 0.4, width - HEAT.right - x)).toFixed(2)}v${rowHeight}H${x.toFixed(2)}z`;
                paths.set(shade, (paths.get(shade) || "") + piece);
            });
        });
        const image = svg("svg", {class: "heat", width, height: height + HEAT.top + HEAT.bottom, viewBox: `0 0 ${width} ${height + HEAT.top + HEAT.bottom}`,
            role: "img", "aria-label": `${this.options.title}, ${run.label}`});
        image.append(svg("rect", {class: "frame", x: HEAT.left, y: HEAT.top, width: inner, height}));
        for (const [shade, d] of paths)
            image.append(shade === "odd" ? svg("path", {class: "odd", d}) : svg("path", {d, fill: viridis(shade / (HEAT.shades - 1))}));
        this.labelRows(image, table.rows, rowHeight);
        this.labelSteps(image, run, groups, cellWidth, height);
        if (size > 1) {
            image.append(svg("title", {}, `Each cell is the ${this.options.choose} of ${size} probes.`));
            image.dataset.probes = size;
        }
        image.addEventListener("mousemove", (event) => this.showCell(event, image, run, table, groups, values, {cellWidth, rowHeight, width}));
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
                block ? (name === "0" ? "block 0" : name) : name.replace("_", " ")));
        });
    }

    labelSteps(image, run, groups, cellWidth, height) {
        if (groups.length === 0) return;
        const most = Math.max(1, Math.floor((groups.length * cellWidth) / 90));
        const every = Math.max(1, Math.ceil(groups.length / most));
        const y = HEAT.top + height + 14;
        for (let c = 0; c < groups.length; c += every) {
            const x = HEAT.left + c * cellWidth;
            image.append(svg("text", {x, y, "text-anchor": c === 0 ? "start" : "middle"}, (c === 0 ? "step " : "") + grouped(run.layers.step[groups[c][0]])));
        }
    }

    showCell(event, image, run, table, groups, values, {cellWidth, rowHeight, width}) {
        const box = image.getBoundingClientRect();
        const scale = width / box.width;
        const c = Math.floor(((event.clientX - box.left) * scale - HEAT.left) / cellWidth);
        const r = table.rows.length - 1 - Math.floor(((event.clientY - box.top) * scale - HEAT.top) / rowHeight);
        if (c < 0 || c >= groups.length || r < 0 || r >= table.rows.length) {
            tooltip.hide();
            return;
        }
        const first = run.layers.step[groups[c][0]];
        const last = run.layers.step[groups[c][groups[c].length - 1]];
        const name = /^\d+$/.test(table.rows[r]) ? `block ${table.rows[r]}` : table.rows[r].replace("_", " ");
        const when = first === last ? `step ${grouped(first)}` : `steps ${grouped(first)} to ${grouped(last)}, ${this.options.choose} of ${groups[c].length}`;
        tooltip.show(event.clientX, event.clientY, el("b", {}, `${name}, ${when}`), tooltip.row(run.index, run.label, shortNumber(values[r][c], 5)));
    }
}
HeatMaps.most = 6;
