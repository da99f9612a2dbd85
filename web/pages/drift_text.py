"""Texts of the page about freshness."""

from __future__ import annotations

from typing import Final

WORDS: Final[dict[str, str]] = {
    "drift_title": "How fresh the weights are",
    "weights": "Weights",
    "unnamed": "without a name",
    "no_weights": "Not known yet: nothing was judged.",
    "age_unknown": "Age unknown",
    "age_today": "Made today",
    "day_old": "day old",
    "days_old": "days old",
    "made_checkpoint": "made",
    "made_catalogue": "made",
    "made_announced": "made before they were announced, on",
    "drift_of": "What arrives now",
    "against": "Compared with",
    "reference_manifest": "a manifest of crops, scored by",
    "reference_service": "videos that a service judged, by",
    "videos_from": "videos that arrived from",
    "no_reference": "Nothing is compared: start the service with --drift-reference. "
    "`unmask drift reference` makes one.",
    "not_compared": "not compared:",
    "drifted": "What arrives has moved away from the reference:",
    "not_drifted": "Nothing has moved by more than chance, or by enough to matter.",
    "see_typical": "Videos that are most typical of it",
    "see_novel": "Videos that are most unusual under the reference",
    "alarm": "drift",
    "alarm_from": "alarm from",
    "without_chance": "without chance",
    "all_bins": "All bins",
    "bin": "Bin",
    "in_reference": "in the reference",
    "in_reference_key": "Reference",
    "now_key": "Now",
    "drift_score": "Scores of people, log-odds",
    "drift_quality": "Quality of faces",
    "drift_face_width": "Width of faces",
    "drift_outcome": "How videos end",
    "drift_help": "PSI is the population stability index. A measure alarms if it is at least 0.1 and more than chance: "
    "fewer than 1 of 1,000 checks of unchanged videos alarm. The interval of 95 % leaves out what chance adds.",
    "by_month": "Verdicts by month",
    "by_month_help": "Against what people decided in closed reviews, by month of arrival and by weights, with "
    "intervals of 95 %. Which videos people saw depends on the rules of reviewing.",
    "no_months": "No review is closed yet.",
    "month": "Month",
    "age_days": "Age, days",
    "fakes_reals": "Fakes / reals",
    "fakes_fake": "Fakes called fake",
    "fakes_inconclusive": "inconclusive",
    "fakes_real": "called real",
    "reals_fake": "Reals called fake",
}
