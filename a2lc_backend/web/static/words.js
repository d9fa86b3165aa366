// Times in words.

/** A time in seconds, as exact as people want to know it. */
export function duration(seconds) {
  if (seconds < 60) return `${Math.ceil(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** How long something will take still, as it is estimated. */
export function left(seconds) {
  return `${seconds < 60 ? "" : "about "}${duration(seconds)} left`;
}
