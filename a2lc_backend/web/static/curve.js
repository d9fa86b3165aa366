// The learning curve: what each round changed, and what is estimated to be wrong still.

import { element } from "./elements.js";
import { whenGone } from "./parts.js";

const SERIES = [
  ["By people", "changed_by_people", "--people"],
  ["By the corrector", "changed_by_corrector", "--corrector"],
  ["Still wrong (estimate)", "still_wrong", "--wrong"],
];
const HEIGHT = 220;
const LEAST_WIDTH = 260;

const dark = matchMedia("(prefers-color-scheme: dark)");

/** The curve of finished rounds, drawn when `part`, which holds it, is on the page, and given back when that goes. */
export function curve(part, rounds) {
  const place = element("div", { class: "chart", role: "img" });
  const known = SERIES.filter(([, name]) => rounds.some((one) => name in one.summary));
  const data = [
    rounds.map((one) => one.number),
    ...known.map(([, name]) => rounds.map((one) => one.summary[name] ?? null)),
  ];
  let chart = null;
  const draw = () => {
    chart?.destroy(); // colours are those of the moment
    chart = new uPlot(options(place, known), data, place);
  };
  const observer = new ResizeObserver(() => {
    const width = widthOf(place);
    if (!chart) draw();
    else if (chart.width !== width) chart.setSize({ width, height: HEIGHT });
  });
  observer.observe(place);
  dark.addEventListener("change", draw);
  whenGone(part, () => {
    observer.disconnect();
    dark.removeEventListener("change", draw);
    chart?.destroy();
  });
  const texts = known.map(([label], index) => `${label}: ${data[index + 1].map((n) => n ?? "unknown").join(", ")}`);
  place.setAttribute("aria-label", texts.join(". "));
  return place;
}

const widthOf = (place) => Math.max(place.clientWidth, LEAST_WIDTH);

function options(place, known) {
  const style = getComputedStyle(place);
  const axis = { stroke: style.color, grid: { stroke: "rgb(128 128 128 / 25%)" }, ticks: { show: false } };
  return {
    width: widthOf(place),
    height: HEIGHT,
    scales: { x: { time: false } },
    axes: [
      { ...axis, incrs: [1, 2, 5, 10, 20, 50], label: "round" },
      { ...axis, label: "masks" },
    ],
    series: [
      { label: "Round" },
      ...known.map(([label, , colour]) => ({ label, stroke: style.getPropertyValue(colour), width: 2, points: { size: 6 } })),
    ],
  };
}
