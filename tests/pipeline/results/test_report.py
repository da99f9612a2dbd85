"""The report in a browser."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page

from pipeline.clip_report import AppliedThresholds, ClipReport
from pipeline.contracts import Adapted, Label, Outcome, Person, ScoredFace, Segment, Verdict, clip_id_of
from pipeline.portraits import Portrait, encode_portrait
from pipeline.results.report import MAX_ROWS, render_report, write_report
from pipeline.results.report_clips import MAX_DETAILED_CLIPS, ReportClips, RunSummary
from pipeline.results.wording import OUTCOMES
from tests.pipeline.records import PROVENANCE, record

HOSTILE = "clips/<script>alert(1)</script>.mp4"
THRESHOLDS = AppliedThresholds(real=0.2, fake=0.8, fpr=0.01)


@cache
def face_jpeg() -> bytes:
    return encode_portrait(skimage.data.astronaut()[30:230, 125:325])


def scored(
    source: str,
    probability: float,
    label: Label = Label.INCONCLUSIVE,
    *,
    tracks: int = 1,
    frames: int = 20,
    step_s: float = 0.5,
    untrained: bool = False,
    thresholds: AppliedThresholds | None = None,
) -> ClipReport:
    """A clip whose tracks swing around `probability`, the first one highest."""
    people, faces, portraits = [], [], []
    for track in range(tracks):
        mean = probability / (1 + track)
        for i in range(frames):
            swing = 0.9 * min(mean, 1 - mean) * math.sin(i / 3)
            face = ScoredFace(
                t_s=(i + 0.5) * step_s,
                index=15 * i,
                track=track,
                box=(10, 10, 90, 90),
                probability=mean + swing,
                quality=0.5 + 0.5 * math.cos(i),
            )
            faces.append(face)
            if i in (2, 8, 14):
                portraits.append(Portrait(track, face.t_s, face.probability, face.quality, face_jpeg()))
        people.append(
            Person(track=track, probability=mean, frames=frames, first_s=step_s / 2, last_s=(frames - 0.5) * step_s)
        )
    verdict = Verdict(
        id=clip_id_of(source),
        source=source,
        outcome=Outcome.SCORED,
        probability=probability,
        label=label,
        error=None,
        duration_s=frames * step_s,
        frames_sampled=frames,
        frames_scored=frames,
        people=people,
        frames=faces,
        provenance=PROVENANCE.model_copy(update={"untrained": untrained}),
        elapsed_s=1.5,
    )
    return ClipReport(verdict, tuple(portraits), tuple(portraits[:1]), thresholds)


def in_part(clip: ClipReport) -> ClipReport:
    """The same with a stretch that looks forged."""
    segment = Segment(track=0, from_s=3.0, to_s=4.5, probability=0.98, frames=4)
    return replace(clip, verdict=clip.verdict.model_copy(update={"segments": [segment]}))


def unjudged(source: str, outcome: Outcome, error: str = "what went wrong") -> ClipReport:
    return ClipReport(
        Verdict(
            id=clip_id_of(source),
            source=source,
            outcome=outcome,
            probability=None,
            label=None,
            error=error,
            duration_s=None,
            frames_sampled=0,
            frames_scored=0,
            people=[],
            frames=[],
            provenance=PROVENANCE,
            elapsed_s=0.1,
        )
    )


def summary(clips: Sequence[ClipReport], command: str = "unmask scan clips --report out.html") -> RunSummary:
    return RunSummary(
        started_at=1_795_425_447,
        elapsed_s=61.4,
        clips=len(clips),
        frames_sampled=sum(clip.verdict.frames_sampled for clip in clips),
        frames_scored=sum(clip.verdict.frames_scored for clip in clips),
        command=command,
        skipped_files=2,
        software="unmask 0.1.0",
    )


def rendered(*clips: ClipReport) -> str:
    return render_report(clips, run=summary(clips))


PAGES = {
    "clip": [scored("clips/fake.mp4", 0.9, Label.FAKE, thresholds=THRESHOLDS)],
    "part": [in_part(scored("clips/part.mp4", 0.2, Label.FAKE, thresholds=THRESHOLDS))],
    "untrained": [scored("clips/talk.mp4", 0.5, untrained=True)],
    "long": [scored("archive/conference.mp4", 0.5, frames=3600, thresholds=THRESHOLDS)],
    "error": [unjudged(HOSTILE, Outcome.UNDECODABLE, "</script><img src=x onerror=alert(2)>")],
    "run": [
        scored("clips/real.mp4", 0.1, Label.REAL, thresholds=THRESHOLDS),
        scored("clips/street.mp4", 0.95, Label.FAKE, tracks=8, thresholds=THRESHOLDS),
        scored("clips/unclear.mp4", 0.5, thresholds=THRESHOLDS),
        scored("clips/random.mp4", 0.6, untrained=True),
        unjudged(HOSTILE, Outcome.NO_FACE),
        unjudged("https://example.org/" + "a-very-long-name-" * 12 + ".mp4", Outcome.UNAVAILABLE),
        unjudged("clips/gpj.\u202e4pm.exe", Outcome.OVER_LIMIT),
    ],
}


# Without a browser.


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(html: str) -> _Text:
    parser = _Text()
    parser.feed(html)
    return parser


@cache
def plain_tags():
    return parsed(rendered(unjudged("name", Outcome.NO_FACE, "error"))).tags


MARKUP = st.sampled_from(["<b>", "</td>", "<!--", '" onclick="', "' x='", "&lt;", "<script>", "{{ 1 }}"])
TEXT = st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=8)


@settings(max_examples=15, deadline=None)
@given(st.lists(MARKUP | TEXT, min_size=1, max_size=6).map("".join))
def test_no_name_or_error_adds_markup(name):
    assert parsed(rendered(unjudged(name, Outcome.NO_FACE, name))).tags == plain_tags()


def test_a_hostile_name_is_shown_as_it_is():
    page = parsed(rendered(unjudged(HOSTILE, Outcome.UNDECODABLE)))
    assert HOSTILE in page.text


def test_names_cannot_reorder_the_page_or_break_its_encoding():
    html = render_report([], title="a\u202eb\udcff\u2028c\x1b", run=summary([], command="scan \udcff"))
    assert html.encode("utf-8")
    assert "a\\u202eb\\udcff\\u2028c\\u001b" in html


def test_the_policy_allows_only_the_page_itself():
    html = rendered(*PAGES["run"])
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy[1]
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.SCORED])
def test_every_other_outcome_is_explained_and_has_no_probability(outcome):
    html = rendered(unjudged("clip.mp4", outcome, "the very reason"))
    assert OUTCOMES[outcome].headline in html
    assert OUTCOMES[outcome].meaning in html
    assert "the very reason" in html
    assert "Probability of fake" not in html


def test_only_an_untrained_network_raises_the_banner():
    banner = "untrained: scores mean nothing"
    assert banner not in rendered(*PAGES["clip"])
    assert banner in rendered(*PAGES["untrained"])
    mixed = rendered(*PAGES["run"])
    assert banner in mixed
    assert "In 1 of 7 clips" in mixed


def test_an_untrained_label_is_never_shown_as_a_verdict():
    html = rendered(scored("clip.mp4", 0.99, Label.FAKE, untrained=True))
    assert "Likely forged" not in html
    assert "No verdict: the network is untrained" in html


def test_known_thresholds_are_explained():
    assert "Real below 0.20, fake from 0.80" in rendered(*PAGES["clip"])
    assert "1 % of real clips" in rendered(*PAGES["clip"])
    assert "not known to this page" in rendered(scored("clip.mp4", 0.5))


def test_a_clip_close_to_fake_is_first_and_has_its_evidence_as_text():
    high = record("high.mp4", probability=0.97, label=Label.INCONCLUSIVE, likelihood_ratio=40.2)
    calm = record("calm.mp4", probability=0.1, label=Label.REAL, likelihood_ratio=0.1)
    html = rendered(ClipReport(high), ClipReport(calm))
    assert "<h1>None of 2 clips is called fake; 1 is close to it (p 0.97)</h1>" in html
    assert "The scores are 40 times more likely if the face is forged than if it is real." in html
    assert "The scores are 10 times more likely if the face is real than if it is forged." in html
    assert "<h1>Inconclusive, close to fake</h1>" in rendered(ClipReport(high))


def test_a_clip_that_is_forged_in_part_says_when():
    html = rendered(PAGES["part"][0], scored("other.mp4", 0.5))
    assert html.index("part.mp4") < html.index("other.mp4")
    assert "Likely forged in part" in html
    assert "from 3.00 s to 4.50 s (p 0.98, track 0)" in html
    assert html.count('<rect class="segment" x=') == 1
    assert "Over whole people; short stretches reach 0.98." in html


def test_a_verdict_on_few_frames_says_so():
    few = record(frames_sampled=5, frames_scored=5, adapted=Adapted(early=True, looked_at=5, planned=41))
    assert "5 of about 41 frames settled this verdict; a short forgery between them would not be seen." in rendered(
        ClipReport(few)
    )
    many = record(adapted=Adapted(early=False, looked_at=5, planned=41))
    assert "settled this verdict" not in rendered(ClipReport(many))


def test_a_page_of_records_without_likelihood_ratios():
    assert "times more likely if the face" not in rendered(ClipReport(record()))


def test_rounding_never_gives_0_or_1():
    html = rendered(scored("clip.mp4", 0.9996, Label.FAKE))
    assert "&gt;0.99" in html
    assert "1.00" not in html.partition("<main>")[2].partition("</header>")[0]


def test_a_person_without_enough_frames_is_below_the_others():
    clip = scored("clip.mp4", 0.3, Label.REAL, frames=40)
    passer_by = Person(track=7, probability=0.99, frames=2, first_s=1.0, last_s=1.5)
    verdict = clip.verdict.model_copy(update={"people": [passer_by, *clip.verdict.people]})
    html = rendered(ClipReport(verdict))
    assert html.index("Track 0</h3>") < html.index("Track 7</h3>")
    assert html.count("seen in too few frames to count") == 1


def test_portraits_of_tracks_without_a_person_are_left_out():
    clip = scored("clip.mp4", 0.5)
    stray = Portrait(track=99, t_s=1.0, probability=1.0, quality=1.0, jpeg=face_jpeg())
    html = rendered(ClipReport(clip.verdict, (*clip.suspicious, stray), clip.clearest))
    assert html.count("<img") == 3
    assert "track 99" not in html


def test_a_long_run_stays_small_and_counts_what_it_omits():
    proto = scored("clip", 0.5, frames=2, step_s=0.5)
    clips = [
        ClipReport(proto.verdict.model_copy(update={"source": f"clips/{i}.mp4", "probability": i / 5000}))
        for i in range(5000)
    ]
    html = rendered(*clips)
    assert len(html) < 5_000_000
    assert html.count("<tr data-kind") == MAX_ROWS
    assert html.count("<details") == MAX_DETAILED_CLIPS
    assert "first 2,000 of 5,000 clips" in html
    assert "for 30 of 5,000 clips" in html
    assert "clips/4999.mp4" in html
    assert "clips/0.mp4" not in html


def test_long_clips_and_crowds_stay_small():
    assert len(rendered(scored("clip.mp4", 0.5, frames=54_000, step_s=1 / 30))) < 200_000
    crowd = rendered(scored("clip.mp4", 0.5, tracks=300, frames=6))
    assert len(crowd) < 500_000
    assert "294 more" in crowd
    assert "254 not listed" in crowd


def mixed_clip(drawn: tuple[int, float | None]) -> ClipReport:
    n, probability = drawn
    if probability is None:
        return unjudged(f"{n}.mp4", Outcome.NO_FACE)
    return scored(f"{n}.mp4", probability, frames=2)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.one_of(st.none(), st.sampled_from([0.1, 0.5, 0.5001, 0.9])), min_size=25, max_size=90))
def test_reduced_clips_make_the_same_page(probabilities):
    clips = [mixed_clip(drawn) for drawn in enumerate(probabilities)]
    gathered = ReportClips()
    for clip in clips:
        gathered.add(clip)
    assert len(gathered) == len(clips)
    assert sum(bool(clip.verdict.frames) for clip in gathered) <= MAX_DETAILED_CLIPS
    assert render_report(gathered, run=summary(clips)) == rendered(*clips)


def test_the_page_is_written_atomically(tmp_path: Path):
    path = tmp_path / "new" / "out.html"
    write_report(path, PAGES["clip"], run=summary(PAGES["clip"]))
    first = path.read_text("utf-8")
    assert first.startswith("<!doctype html>")
    assert first.endswith("</html>\n")

    broken = ClipReport(PAGES["clip"][0].verdict, (Portrait(0, 1.0, 0.5, 0.5, jpeg=None),))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        write_report(path, [broken], run=summary([broken]))
    assert path.read_text("utf-8") == first
    assert [entry.name for entry in path.parent.iterdir()] == ["out.html"]


# In a browser.


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    for name, clips in PAGES.items():
        write_report(folder / f"{name}.html", clips, run=summary(clips))
    return {name: (folder / f"{name}.html").as_uri() for name in PAGES}


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        yield context.new_page()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_quiet_fits_and_can_be_read(browser, pages, name, width, scheme):
    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
        page = context.new_page()
        complaints: list[str] = []
        requests: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(pages[name])
        page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(LOW_CONTRAST) == []
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        assert [url for url in requests if not url.startswith("data:")] == [pages[name]]
        assert complaints == []


# Text whose contrast with its background is below 4.5 (WCAG 2.2, 1.4.3): [text, ratio].
LOW_CONTRAST = """() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b]
    .map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest("script") || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const colour = parse(element.closest("svg") ? style.fill : style.color);
    const [a, b] = [luminance(colour), luminance(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push([walker.currentNode.data.trim(), ratio]);
  }
  return found;
}"""


@pytest.mark.browser
def test_the_contrast_check_finds_pale_text(page, pages):
    page.goto(pages["clip"])
    page.evaluate("document.querySelector('h1').style.color = '#bbb'")
    assert [text for text, _ in page.evaluate(LOW_CONTRAST)] == ["Likely forged"]


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_banner_stays_visible(page, pages, width):
    page.set_viewport_size({"width": width, "height": 700})
    page.goto(pages["untrained"])
    page.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
    for y in (0, 500, 100_000):
        page.evaluate(f"scrollTo(0, {y})")
        box = page.get_by_text("untrained: scores mean nothing").bounding_box()
        assert box is not None
        assert 0 <= box["y"] < 60


@pytest.mark.browser
def test_untrained_scores_are_struck_out(page, pages):
    page.goto(pages["untrained"])
    lines = page.eval_on_selector_all(".score", "all => all.map(each => getComputedStyle(each).textDecorationLine)")
    assert len(lines) > 3
    assert set(lines) == {"line-through"}


@pytest.mark.browser
def test_pointing_at_the_timeline_shows_time_probability_quality_and_frame(page, pages):
    page.goto(pages["clip"])
    plot = page.locator("[data-plot]")
    face = PAGES["clip"][0].verdict.frames[4]
    width = plot.bounding_box()["width"]
    plot.hover(position={"x": width * face.t_s / 10, "y": 60})
    tip = page.locator(".tip")
    assert tip.inner_text().split("\n") == [
        f"{face.probability:.3f} at {face.t_s:.2f} s",
        f"quality {face.quality:.2f}, frame {face.index}",
    ]
    page.mouse.move(0, 0)
    assert tip.count() == 0


@pytest.mark.browser
def test_tapping_the_timeline_works_and_the_tip_stays_within_it(browser, pages):
    with browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True) as context:
        page = context.new_page()
        page.goto(pages["clip"])
        plot = page.locator("[data-plot]")
        plot.scroll_into_view_if_needed()
        for share in (0.02, 0.5, 0.98):
            box = plot.bounding_box()
            page.touchscreen.tap(box["x"] + share * box["width"], box["y"] + 60)
            tip = page.locator(".tip").bounding_box()
            assert box["x"] <= tip["x"]
            assert tip["x"] + tip["width"] <= box["x"] + box["width"] + 1


@pytest.mark.browser
def test_the_timeline_works_by_keyboard(page, pages):
    page.goto(pages["clip"])
    plot = page.get_by_role("slider")
    plot.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    face = PAGES["clip"][0].verdict.frames[-2]
    said = plot.get_attribute("aria-valuetext")
    assert said.startswith(f"{face.probability:.3f} at {face.t_s:.2f} s")
    assert plot.get_attribute("aria-valuenow") == "18"
    page.keyboard.press("Escape")
    assert page.locator(".tip").count() == 0


@pytest.mark.browser
def test_a_picture_shows_its_moment_on_the_timeline(page, pages):
    page.goto(pages["clip"])
    page.locator(".portrait").first.click()
    moment = PAGES["clip"][0].suspicious[0]
    assert page.locator(".tip b").inner_text() == f"{moment.probability:.3f} at {moment.t_s:.2f} s"


@pytest.mark.browser
def test_the_table_sorts_by_every_kind_of_column(page, pages):
    page.goto(pages["run"])
    names = page.locator("[data-clips] tbody th > :first-child")
    first = names.all_inner_texts()
    assert first[:4] == ["street.mp4", "random.mp4", "unclear.mp4", "real.mp4"]
    page.get_by_role("columnheader", name="P(fake)").get_by_role("button").click()
    assert names.all_inner_texts()[-4:] == ["real.mp4", "unclear.mp4", "random.mp4", "street.mp4"]
    assert page.locator("[aria-sort=ascending]").inner_text().startswith("P(fake)")
    page.get_by_role("columnheader", name="Clip").get_by_role("button").click()
    by_name = names.all_inner_texts()
    assert by_name.index("random.mp4") < by_name.index("real.mp4") < by_name.index("street.mp4")
    page.get_by_role("columnheader", name="People").get_by_role("button").click()
    assert names.first.inner_text() == "street.mp4"


@pytest.mark.browser
def test_the_table_filters_by_text_and_by_verdict(page, pages):
    page.goto(pages["run"])
    rows = page.locator("[data-clips] tbody tr:visible")
    page.get_by_label("Find").fill("STREET")
    assert rows.count() == 1
    page.get_by_label("Find").fill("")
    page.get_by_label("Show").select_option("Inconclusive")
    assert rows.count() == 1
    assert page.locator("[data-count]").inner_text() == "1 of 7"


@pytest.mark.browser
def test_a_row_leads_to_its_open_details(page, pages):
    page.goto(pages["run"])
    assert page.locator("details[open]").count() == 1
    page.get_by_role("link", name="unclear.mp4").click()
    details = page.locator("details:target")
    assert details.locator("[data-plot]").is_visible()
    page.get_by_role("button", name="Open all").click()
    assert page.locator("details:not([open])").count() == 0


@pytest.mark.browser
def test_provenance_can_be_copied(page, pages):
    page.goto(pages["clip"])
    button = page.get_by_role("button", name="Copy Weights sha256")
    button.click()
    page.wait_for_function("button => button.textContent !== 'Copy'", arg=button.element_handle())
    if button.inner_text() == "Selected":
        assert page.evaluate("getSelection().toString()") == PROVENANCE.weights_sha256[0]
    else:
        page.context.grant_permissions(["clipboard-read"])
        assert page.evaluate("navigator.clipboard.readText()") == PROVENANCE.weights_sha256[0]
