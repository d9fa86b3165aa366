// The learning curve: what each round changed, and what is estimated to be wrong still.

const SERIES = [
  ["By people", "changed_by_people", "#d55e00"],
  ["By the corrector", "changed_by_corrector", "#0072b2"],
  ["Still wrong (estimate)", "still_wrong", "#8a5a9e"],
];

/** Draw the curve of finished rounds into an element. */
export function curve(place, rounds) {
  const style = getComputedStyle(place);
  const axis = { stroke: style.color, grid: { stroke: "rgb(128 128 128 / 25%)" }, ticks: { show: false } };
  const known = SERIES.filter(([, name]) => rounds.some((one) => name in one.summary));
  const data = [
    rounds.map((one) => one.number),
    ...known.map(([, name]) => rounds.map((one) => one.summary[name] ?? null)),
  ];
  const options = {
    width: Math.max(place.clientWidth, 260),
    height: 220,
    scales: { x: { time: false } },
    axes: [
      { ...axis, incrs: [1, 2, 5, 10, 20, 50], label: "round" },
      { ...axis, label: "masks" },
    ],
    series: [
      { label: "Round" },
      ...known.map(([label, , stroke]) => ({ label, stroke, width: 2, points: { size: 6 } })),
    ],
  };
  place.replaceChildren();
  const chart = new uPlot(options, data, place);
  new ResizeObserver(() => chart.setSize({ width: Math.max(place.clientWidth, 260), height: 220 })).observe(place);
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", known.map(([label], index) => `${label}: ${data[index + 1].map((n) => n ?? "unknown").join(", ")}`).join(". "));
}
