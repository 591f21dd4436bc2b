// Elements, colours, numbers.

/** An element: el("td", {class: "number"}, "text", child...). Texts are never read as HTML. */
function el(tag, attributes, ...children) {
    const element = document.createElement(tag);
    return filled(element, attributes, children);
}

/** The same for SVG. */
function svg(tag, attributes, ...children) {
    return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
        if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
        else if (value === true) element.setAttribute(name, "");
        else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
    return element;
}

/** JSON has no number for what is not finite; Ballast spells it as a word. */
function numberOf(value) {
    return typeof value === "string" ? Number(value) : value;
}

/** A number as people read it: `digits` significant ones. */
function shortNumber(value, digits = 4) {
    if (value === null || value === undefined) return "–";
    if (Number.isNaN(value)) return "NaN";
    if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
    if (value === 0) return "0";
    const size = Math.abs(value);
    let text;
    if (size >= 1e6 || size < 1e-3) {
        text = value.toExponential(digits - 1).replace(/\.?0+e/, "e").replace("e+", "e");
    } else {
        text = value.toPrecision(digits);
        if (text.includes("e")) text = String(Number(text));
        if (text.includes(".")) text = text.replace(/\.?0+$/, "");
    }
    return text.replace(/^-/, "−").replace("e-", "e−");
}

function grouped(value) {
    return Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, ",");
}

function duration(seconds) {
    if (!(seconds >= 0)) return "–";
    if (seconds < 60) return shortNumber(seconds, 3) + " s";
    const minutes = Math.round(seconds / 60);
    if (minutes < 60) return Math.floor(seconds / 60) + " min " + Math.floor(seconds % 60) + " s";
    return Math.floor(minutes / 60) + " h " + (minutes % 60) + " min";
}

// Okabe and Ito's colours, which stay apart for colour-blind eyes, but for their yellow and black, of which each is lost
// on one ground: a chart is drawn once for light and dark screens and for paper. Runs beyond the seventh have another
// dash.
const PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#808080"];
const GRID = "rgba(128, 128, 128, 0.18)";
const AXIS = "rgba(128, 128, 128, 0.4)";
const DASHES = [null, [7, 3], [2, 3], [10, 3, 2, 3]];

/** Ticks of a logarithmic axis for dygraphs: powers of ten, and where there are few, some digits between them. */
function logTicks(low, high, pixels, option, graph, values) {
    const decades = Math.log10(high / low);
    if (!(decades > 0.8)) return Dygraph.numericTicks(low, high, pixels, option, graph, values);
    const room = pixels / decades; // of a power of ten
    const digits = room > 120 ? [1, 2, 5] : room > 60 ? [1, 3] : [1];
    const every = Math.max(1, Math.ceil(26 / room));
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); ++power) {
        if (power % every !== 0) continue;
        for (const digit of digits) {
            const value = Number(`${digit}e${power}`);
            if (value >= low && value <= high) ticks.push({v: value, label: shortNumber(value, 1)});
        }
    }
    return ticks;
}

/** Round numbers between two others, about `count` of them. */
function roundTicks(low, high, count) {
    const rough = Math.max((high - low) / Math.max(count, 1), 1);
    const power = Math.pow(10, Math.floor(Math.log10(rough)));
    const step = [1, 2, 5, 10].map((digit) => digit * power).find((candidate) => candidate >= rough);
    const ticks = [];
    for (let value = Math.ceil(low / step) * step; value <= high; value += step) ticks.push(value);
    return ticks;
}

/** How the line with this number looks. */
function lineStyle(index) {
    return {color: PALETTE[index % PALETTE.length], dash: DASHES[Math.floor(index / PALETTE.length) % DASHES.length]};
}

function withAlpha(color, alpha) {
    const part = (at) => parseInt(color.slice(at, at + 2), 16);
    return `rgba(${part(1)}, ${part(3)}, ${part(5)}, ${alpha})`;
}

/** A piece of a run's line, for legends and tables. */
function swatch(index) {
    const {color, dash} = lineStyle(index);
    return svg("svg", {width: 22, height: 10, "aria-hidden": "true"},
        svg("line", {x1: 0, y1: 5, x2: 22, y2: 5, stroke: color, "stroke-width": 2.5, "stroke-dasharray": dash ? dash.join(" ") : null}));
}

// ---- The tooltip of charts and heat maps ----

const tooltip = {
    show(x, y, ...content) {
        const box = document.getElementById("tooltip");
        box.replaceChildren(...content.flat().filter(Boolean));
        box.hidden = false;
        const {width, height} = box.getBoundingClientRect();
        const left = x + 16 + width < window.innerWidth ? x + 16 : Math.max(8, x - 16 - width);
        const top = y + 16 + height < window.innerHeight ? y + 16 : Math.max(8, y - 16 - height);
        box.style.left = left + "px";
        box.style.top = top + "px";
    },
    hide() {
        document.getElementById("tooltip").hidden = true;
    },
    row(line, name, value) {
        return el("div", {class: "row"}, swatch(line), el("span", {class: "name"}, name), el("span", {}, value));
    },
};

// Viridis (Smith and van der Walt, 2015) at nine places; between them colours are mixed.
const VIRIDIS = [
    [68, 1, 84], [71, 45, 123], [59, 82, 139], [44, 114, 142], [33, 145, 140], [40, 174, 128], [94, 201, 98], [173, 220, 48],
    [253, 231, 37],
];

/** The colour of a share from 0 to 1. */
function viridis(share) {
    const place = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1);
    const below = Math.min(Math.floor(place), VIRIDIS.length - 2);
    const mixed = VIRIDIS[below].map((value, i) => Math.round(value + (VIRIDIS[below + 1][i] - value) * (place - below)));
    return `rgb(${mixed.join(", ")})`;
}
