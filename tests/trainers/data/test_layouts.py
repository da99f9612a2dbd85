"""Readers on folders with the layouts of the data sets. Nothing is decoded, so the files are empty."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from trainers.data.layouts import LayoutError, LayoutOptions, Listing, Shares, SourceVideo, read_layout
from trainers.data.manifest import FAKE, REAL


def touch(root: Path, files: Iterable[str]) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def by_name(listing: Listing) -> dict[str, SourceVideo]:
    return {video.source_video: video for video in listing.videos}


def splits_of(listing: Listing) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for video in listing.videos:
        found.setdefault(video.group, set()).add(video.split)
    return found


class TestFaceForensics:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        touch(tmp_path, (f"original_sequences/youtube/c23/videos/{n}.mp4" for n in ("000", "003", "035", "036", "999")))
        touch(tmp_path, ("original_sequences/youtube/raw/videos/000.mp4",))
        for method in ("Deepfakes", "NeuralTextures"):
            touch(
                tmp_path,
                (f"manipulated_sequences/{method}/c23/videos/{n}.mp4" for n in ("000_003", "003_000", "035_036")),
            )
        touch(tmp_path, ("manipulated_sequences/Deepfakes/raw/videos/000_003.mp4",))
        for name, pairs in (("train", [["003", "000"]]), ("val", [["035", "036"]]), ("test", [["100", "200"]])):
            (tmp_path / f"{name}.json").write_text(json.dumps(pairs))
        return tmp_path

    def test_official_splits_and_pairs(self, root: Path) -> None:
        listing = read_layout("faceforensics", root)
        videos = by_name(listing)
        assert len(videos) == 4 + 2 * 3
        assert listing.dropped == {"not in train.json, val.json or test.json": 1}
        fake = videos["ffpp_c23-Deepfakes-000_003"]
        assert fake == SourceVideo(
            path=root / "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4",
            label=FAKE,
            split="train",
            group="ffpp-000_003",
            source_video="ffpp_c23-Deepfakes-000_003",
            method="Deepfakes",
            dataset="ffpp_c23",
            original="ffpp_c23-real-000",
        )
        real = videos["ffpp_c23-real-000"]
        assert (real.label, real.split, real.group, real.method, real.original) == (REAL, "train", fake.group, "", "")
        assert videos["ffpp_c23-NeuralTextures-035_036"].split == "val"

    def test_compression_and_methods_are_chosen(self, root: Path) -> None:
        listing = read_layout("faceforensics", root, LayoutOptions(compression="raw"))
        assert set(by_name(listing)) == {"ffpp_raw-real-000", "ffpp_raw-Deepfakes-000_003"}
        (root / "original_sequences/youtube/raw").rename(root / "original_sequences/youtube/c0")
        assert by_name(read_layout("faceforensics", root, LayoutOptions(compression="raw"))) == {
            name: SourceVideo(
                **{**fields_of(video), "path": Path(str(video.path).replace("youtube/raw", "youtube/c0"))}
            )
            for name, video in by_name(listing).items()
        }
        only = read_layout("faceforensics", root, LayoutOptions(methods=("NeuralTextures",)))
        assert {video.method for video in only.videos} == {"", "NeuralTextures"}

    def test_folders_of_frames_are_clips(self, root: Path) -> None:
        videos = by_name(read_layout("faceforensics", root))
        for folder in list(root.glob("*_sequences/*/c23")):
            touch(folder, (f"frames/{path.stem}/000.png" for path in (folder / "videos").iterdir()))
        assert by_name(read_layout("faceforensics", root)) == videos
        for path in list(root.glob("*_sequences/*/c23/videos/*.mp4")):
            path.unlink()
        frames = read_layout("faceforensics", root).videos
        assert [video.source_video for video in frames] == list(videos)
        assert all(video.path.parent.name == "frames" for video in frames)

    def test_missing_lists_are_named(self, root: Path) -> None:
        (root / "val.json").unlink()
        with pytest.raises(LayoutError, match=r"train\.json, val\.json and test\.json in .*val\.json is missing"):
            read_layout("faceforensics", root)
        own = read_layout("faceforensics", root, LayoutOptions(official=False))
        assert len(own.videos) == 5 + 2 * 3
        assert all(len(splits) == 1 for splits in splits_of(own).values())
        assert by_name(own)["ffpp_c23-Deepfakes-035_036"].group == "ffpp-035_036"

    @pytest.mark.parametrize("text", ["{", "[1]", '[["000"]]', '[["000", 3]]', '[["000", "003"], ["035", "100"]]'])
    def test_a_malformed_list_is_named(self, root: Path, text: str) -> None:
        (root / "test.json").write_text(text)
        with pytest.raises(LayoutError, match=r"test\.json: expected a list of pairs"):
            read_layout("faceforensics", root)

    def test_missing_folders_are_named_with_existing_ones(self, root: Path) -> None:
        with pytest.raises(LayoutError, match=r"expected the folder .*FaceSwap; .* holds Deepfakes/, NeuralTextures/"):
            read_layout("faceforensics", root, LayoutOptions(methods=("FaceSwap",)))
        with pytest.raises(LayoutError, match="expected METHOD/c40"):
            read_layout("faceforensics", root, LayoutOptions(compression="c40"))
        (root / "original_sequences/youtube/c23").rename(root / "original_sequences/youtube/c24")
        with pytest.raises(LayoutError, match=r"expected the folder .*youtube/c23; .* holds c24/, raw/"):
            read_layout("faceforensics", root)

    def test_a_fake_of_two_pairs_is_left_out(self, root: Path) -> None:
        touch(root, ("manipulated_sequences/Deepfakes/c23/videos/000_035.mp4",))
        assert read_layout("faceforensics", root).dropped["connects two pairs of identities"] == 1

    def test_actors_are_split_by_actor(self, tmp_path: Path) -> None:
        actors = [f"{n:02d}" for n in range(1, 29)]
        touch(tmp_path, (f"original_sequences/actors/c23/videos/{a}__kitchen_pan.mp4" for a in actors))
        fakes = [(a, b) for a in actors for b in actors if a != b]
        folder = "manipulated_sequences/DeepFakeDetection/c23/videos"
        touch(tmp_path, (f"{folder}/{a}_{b}__kitchen_pan__YVGY8LOK.mp4" for a, b in fakes))
        touch(tmp_path, (f"{folder}/unnamed.mp4",))
        listing = read_layout("faceforensics", tmp_path)
        homes: dict[str, set[str]] = {}
        for video in listing.videos:
            for actor in video.path.stem.split("__")[0].split("_"):
                homes.setdefault(actor, set()).add(video.split)
        assert len(homes) == 28
        assert all(len(splits) == 1 for splits in homes.values())
        assert set.union(*homes.values()) == {"train", "val", "test"}
        assert listing.dropped["not named like an actor's video"] == 1
        assert listing.dropped["connects actors of two splits"] == 28 + len(fakes) - len(listing.videos)
        fake = next(video for video in listing.videos if video.method)
        assert by_name(listing)[fake.original].path.stem == f"{fake.path.stem[:2]}__kitchen_pan"
        assert listing == read_layout("faceforensics", tmp_path)


def fields_of(video: SourceVideo) -> dict[str, object]:
    return {name: getattr(video, name) for name in SourceVideo.__dataclass_fields__}


class TestCelebDf:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "Celeb-DF-v2"
        touch(root, (f"Celeb-real/id{n}_0000.mp4" for n in range(40)))
        touch(root, ("Celeb-real/id0_0001.mp4",))
        touch(root, (f"YouTube-real/{n:05d}.mp4" for n in range(40)))
        touch(
            root,
            (f"Celeb-synthesis/id{n}_id{m}_0000.mp4" for n in range(40) for m in (0, (n + 1) % 40, (n + 2) % 40)),
        )
        (root / "List_of_testing_videos.txt").write_text(
            "1 YouTube-real/00007.mp4\n1 Celeb-real/id0_0000.mp4\n0 Celeb-synthesis/id1_id0_0000.mp4\n"
            "0 Celeb-synthesis/id2_id77_0000.mp4\n\n"
        )
        return root

    def test_the_test_list_is_the_test_split(self, root: Path) -> None:
        listing = read_layout("celeb-df", root)
        assert {video.source_video for video in listing.videos if video.split == "test"} == {
            "celeb_df_v2-YouTube-real-00007",
            "celeb_df_v2-Celeb-real-id0_0000",
            "celeb_df_v2-Celeb-DF-id1_id0_0000",
        }
        fake = by_name(listing)["celeb_df_v2-Celeb-DF-id1_id0_0000"]
        # The original is of a test identity but not on the list: it is left out, and the fake has no original.
        assert (fake.group, fake.method, fake.dataset, fake.original) == ("celeb-id1", "Celeb-DF", "celeb_df_v2", "")
        assert "celeb_df_v2-Celeb-real-id0_0001" not in by_name(listing)

    def test_no_identity_is_in_two_splits_and_left_out_videos_are_counted(self, root: Path) -> None:
        listing = read_layout("celeb-df", root)
        homes: dict[str, set[str]] = {}
        for video in listing.videos:
            for name in video.path.stem.split("_")[:-1] or [video.path.stem]:
                homes.setdefault(name, set()).add(video.split)
        assert all(len(splits) == 1 for splits in homes.values())
        files = list(root.rglob("*.mp4"))
        assert sum(listing.dropped.values()) + len(listing.videos) == len(files)
        fake = next(video for video in listing.videos if video.method and video.original)
        assert by_name(listing)[fake.original].path.stem == f"{fake.path.stem.split('_')[0]}_0000"

    def test_own_splits_use_all_identities(self, root: Path) -> None:
        (root / "List_of_testing_videos.txt").unlink()
        with pytest.raises(LayoutError, match=r"expected the file .*List_of_testing_videos\.txt; .* holds Celeb-real/"):
            read_layout("celeb-df", root)
        own = read_layout("celeb-df", root, LayoutOptions(official=False))
        assert {video.split for video in own.videos} == {"train", "val", "test"}
        assert all(len(splits) == 1 for splits in splits_of(own).values())

    def test_celeb_df_pp_has_methods_in_folders(self, root: Path) -> None:
        pp = root.rename(root.with_name("Celeb-DF++"))
        old = pp / "Celeb-synthesis"
        old.rename(pp / "old")
        (old / "FaceSwap").mkdir(parents=True)
        (pp / "old").rename(old / "FaceSwap" / "Celeb-DF")
        touch(old, ("FaceSwap/GHOST/id5_id6_0000.mp4", "TalkingFace/SadTalker/id5_0000.mp4", "FaceReenact/LIA/x.mp4"))
        (pp / "List_of_testing_videos.txt").write_text("0 Celeb-synthesis/TalkingFace/SadTalker/id5_0000.mp4\n")
        listing = read_layout("celeb-df", pp)
        talking = by_name(listing)["celeb_df_pp-SadTalker-id5_0000"]
        assert (talking.split, talking.method, talking.group) == ("test", "SadTalker", "celeb-id5")
        assert {video.method for video in listing.videos} == {"", "Celeb-DF", "SadTalker"}
        assert listing.dropped["no identity in its name"] == 1
        ghost = read_layout("celeb-df", pp, LayoutOptions(split="all", methods=("GHOST",)))
        assert {(video.split, video.method) for video in ghost.videos} == {("all", ""), ("all", "GHOST")}
        assert by_name(ghost)["celeb_df_pp-GHOST-id5_id6_0000"].original == "celeb_df_pp-Celeb-real-id5_0000"

    def test_a_list_of_another_set_is_refused(self, root: Path) -> None:
        (root / "List_of_testing_videos.txt").write_text("1 YouTube-real/99999.mp4\n")
        with pytest.raises(LayoutError, match="names 1 videos, none of which exists in"):
            read_layout("celeb-df", root)
        (root / "List_of_testing_videos.txt").write_text("YouTube-real/00007.mp4\n")
        with pytest.raises(LayoutError, match="line 1: expected `LABEL PATH`"):
            read_layout("celeb-df", root)


class TestDfdc:
    def part(self, folder: Path, entries: dict[str, dict[str, object]], absent: Iterable[str] = ()) -> None:
        touch(folder, (name for name in entries if name not in absent))
        folder.mkdir(exist_ok=True)
        (folder / "metadata.json").write_text(json.dumps(entries))

    def test_groups_are_originals(self, tmp_path: Path) -> None:
        real = {"label": "REAL", "split": "train", "original": None}
        self.part(tmp_path / "dfdc_train_part_0", {f"r{n}.mp4": real for n in range(60)})
        fakes = {f"f{n}.mp4": {"label": "FAKE", "split": "train", "original": f"r{n // 2}.mp4"} for n in range(120)}
        self.part(tmp_path / "dfdc_train_part_1", {**fakes, "gone.mp4": real}, absent=["gone.mp4"])
        listing = read_layout("dfdc", tmp_path, LayoutOptions(shares=Shares(val=0.3, test=0)))
        assert len(listing.videos) == 180
        assert listing.dropped == {"in metadata.json, but missing": 1}
        fake = by_name(listing)["f7"]
        assert (fake.group, fake.original, fake.method, fake.dataset) == ("r3", "r3", "dfdc", "dfdc")
        assert {video.split for video in listing.videos} == {"train", "val"}
        assert all(len(splits) == 1 for splits in splits_of(listing).values())
        alone = read_layout("dfdc", tmp_path / "dfdc_train_part_1")
        assert by_name(alone)["f7"].group == "r3"
        assert by_name(alone)["f7"].original == ""

    def test_the_message_names_what_was_expected(self, tmp_path: Path) -> None:
        with pytest.raises(LayoutError, match=r"expected metadata\.json or folders dfdc_train_part_N in .* is empty"):
            read_layout("dfdc", tmp_path)
        self.part(tmp_path, {"a.mp4": {"label": "MAYBE"}})
        with pytest.raises(LayoutError, match=r"a\.mp4: expected the label real or fake, got 'MAYBE'"):
            read_layout("dfdc", tmp_path)
        (tmp_path / "metadata.json").write_text("[]")
        with pytest.raises(LayoutError, match="expected an object of video names"):
            read_layout("dfdc", tmp_path)

    def test_preview(self, tmp_path: Path) -> None:
        entries = {
            "original_videos/643049/643049_A_001.mp4": {"label": "real", "set": "train"},
            "original_videos/777777/777777_A_001.mp4": {"label": "real", "set": "test"},
            "method_A/643049/1224068/643049_D_001.mp4": {
                "label": "fake", "set": "train", "target_id": 643049, "swapped_id": 1224068,
            },
            "method_B/643049/777777/643049_E_001.mp4": {"label": "fake", "set": "train"},
            "method_A/none/none/1_A.mp4": {"label": "fake", "set": "train"},
        }  # fmt: skip
        touch(tmp_path, list(entries)[:4])
        (tmp_path / "dataset.json").write_text(json.dumps(entries))
        listing = read_layout("dfdcp", tmp_path, LayoutOptions(shares=Shares(val=0, test=0.1)))
        assert {name: (v.split, v.group, v.method) for name, v in by_name(listing).items()} == {
            "dfdcp-643049_A_001": ("train", "dfdcp-643049", ""),
            "dfdcp-643049_D_001": ("train", "dfdcp-643049", "method_A"),
            "dfdcp-777777_A_001": ("test", "dfdcp-777777", ""),
        }
        assert listing.dropped == {"connects actors of two splits": 1, "in dataset.json, but missing": 1}


class TestDf40:
    def test_training_and_testing_folders(self, tmp_path: Path) -> None:
        touch(
            tmp_path,
            (f"DF40_train/simswap/frames/{n:03d}_{n + 1:03d}/{i:03d}.png" for n in range(0, 80, 2) for i in (0, 9)),
        )
        touch(tmp_path, ("DF40_train/simswap/landmarks/000_001/000.npy", "DF40_train/simswap/masks/000_001/000.png"))
        touch(
            tmp_path, ("DF40/Face-swapping/simswap/ff/frames/900_901/000.png", "DF40/simswap/ff/frames/001_000/000.png")
        )
        touch(tmp_path, ("DF40/simswap/cdf/frames/id0_id1_0000/000.png", "DF40/VQGAN/cdf/00007.png"))
        touch(tmp_path, ("DF40/heygen/fake/900/1.png", "DF40/heygen/real/1/1.png"))
        listing = read_layout("df40", tmp_path)
        videos = by_name(listing)
        swap = videos["df40-DF40-Face-swapping-simswap-ff-900_901"]
        assert (swap.split, swap.group, swap.method, swap.label) == ("test", "ffpp-900_901", "simswap", FAKE)
        assert swap.path == tmp_path / "DF40/Face-swapping/simswap/ff/frames/900_901"
        celebrity = videos["df40-DF40-simswap-cdf-id0_id1_0000"]
        assert (celebrity.split, celebrity.group) == ("test", "celeb-id0")
        assert videos["df40-DF40-VQGAN-cdf-00007"].path.name == "00007.png"
        own = videos["df40-DF40-heygen-fake-900"]
        assert (own.group, own.method) == ("df40-heygen-900", "heygen")
        assert (videos["df40-DF40-heygen-real-1"].label, videos["df40-DF40-heygen-real-1"].method) == (REAL, "")
        training = [video for video in listing.videos if "DF40_train" in video.source_video]
        assert {video.split for video in training} == {"train", "val"}
        # 000_001 is in training and in test: the test video stays.
        assert listing.dropped == {"connects identities of two splits": 1}
        assert len(training) == 39

    def test_official_lists_are_used(self, tmp_path: Path) -> None:
        touch(tmp_path, ("DF40_train/simswap/frames/000_001/0.png", "DF40_train/simswap/frames/002_003/0.png"))
        for name, pairs in (("train", [["001", "000"]]), ("val", [["002", "003"]]), ("test", [])):
            (tmp_path / f"{name}.json").write_text(json.dumps(pairs))
        assert [video.split for video in read_layout("df40", tmp_path).videos] == ["train", "val"]

    def test_pictures_outside_of_a_method(self, tmp_path: Path) -> None:
        with pytest.raises(LayoutError, match="expected METHOD/frames/VIDEO"):
            read_layout("df40", tmp_path)
        touch(tmp_path, ("DF40/ff/frames/900_901/000.png",))
        with pytest.raises(LayoutError, match="expected it in a folder METHOD"):
            read_layout("df40", tmp_path)


class TestFolder:
    def test_sub_folders(self, tmp_path: Path) -> None:
        root = tmp_path / "mine"
        touch(
            root, ("real/7.mp4", "real/3.mp4", "real/long_name.mkv", "real/walk/0.png", "real/walk/1.png", "real/p.jpg")
        )
        touch(root, ("fake/blend/7.mp4", "fake/swap/7_3.mp4", "fake/swap/long_name_x.mp4", "fake/swap/walk/0.png"))
        touch(root, ("fake/unnamed.mp4", "fake/blend/odd.mp4", "fake/swap/odd.mp4", "fake/notes.txt"))
        listing = read_layout("folder", root)
        videos = by_name(listing)
        assert len(videos) == 5 + 7
        assert videos["mine-fake/blend/7"].original == "mine-real/7"
        assert videos["mine-fake/swap/7_3"].original == "mine-real/7"
        # 7_3 connects two people, odd has the same name twice.
        assert len({videos[f"mine-{name}"].group for name in ("real/7", "real/3", "fake/swap/7_3")}) == 1
        assert videos["mine-fake/blend/odd"].group == videos["mine-fake/swap/odd"].group
        assert videos["mine-fake/swap/long_name_x"].original == "mine-real/long_name"
        assert videos["mine-fake/swap/walk"].original == "mine-real/walk"
        assert videos["mine-real/walk"].path == root / "real" / "walk"
        assert videos["mine-fake/unnamed"].method == "fake"
        assert (videos["mine-fake/swap/7_3"].method, videos["mine-real/7"].group) == ("swap", "mine-real/3")
        assert all(len(splits) == 1 for splits in splits_of(listing).values())

    def test_table(self, tmp_path: Path) -> None:
        (tmp_path / "labels.csv").write_text(
            "file,label,method,dataset,pair,split,note\n"
            "a.mp4,real,,web,a_x.mp4,val,\na_x.mp4,FAKE,swap,web,,,\nb_x.mp4,1,,,b.mp4,,\nb.mp4,0,,,,test,\n"
        )
        listing = read_layout("folder", tmp_path)
        videos = by_name(listing)
        name = tmp_path.name
        assert (videos["web-a_x"].original, videos["web-a_x"].group, videos["web-a_x"].split) == (
            "web-a",
            "web-a",
            "val",
        )
        assert (videos[f"{name}-b_x"].original, videos[f"{name}-b_x"].split) == (f"{name}-b", "test")
        assert (videos[f"{name}-b_x"].method, videos["web-a_x"].method) == ("fake", "swap")

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ("name,label\na,real\n", "expected columns file and label, file is not among"),
            ("file,label\n", "has no rows"),
            ("file,label\na.mp4,maybe\n", "a.mp4 has the label 'maybe', expected real or fake"),
            ("file,label\na.mp4,real\na.mp4,fake\n", "a.mp4 is listed twice"),
            ("file,label,pair\na.mp4,fake,b.mp4\n", "a.mp4 has the pair b.mp4, which is not a file in the table"),
        ],
    )
    def test_a_malformed_table_is_refused(self, tmp_path: Path, table: str, message: str) -> None:
        (tmp_path / "labels.csv").write_text(table)
        with pytest.raises(LayoutError, match=message):
            read_layout("folder", tmp_path)

    def test_the_message_names_what_was_expected(self, tmp_path: Path) -> None:
        touch(tmp_path, ("Real/7.mp4",))
        with pytest.raises(LayoutError, match=r"expected labels\.csv, or folders real and fake, in .* holds Real/"):
            read_layout("folder", tmp_path)
        (tmp_path / "fake").mkdir()
        with pytest.raises(LayoutError, match="expected videos, pictures or folders of frames"):
            read_layout("folder", tmp_path)


def test_unknown_layouts_folders_and_methods(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="unknown layout 'dfd'; available: faceforensics, celeb-df"):
        read_layout("dfd", tmp_path)
    with pytest.raises(LayoutError, match=r"expected the folder .*nowhere; .* is empty"):
        read_layout("folder", tmp_path / "nowhere")
    touch(tmp_path, ("real/7.mp4", "fake/swap/7.mp4"))
    with pytest.raises(LayoutError, match="has no videos of blend; found: swap"):
        read_layout("folder", tmp_path, LayoutOptions(methods=("blend",)))


def test_the_hash_of_a_listing_identifies_its_videos(tmp_path: Path) -> None:
    touch(tmp_path / "a", ("real/7.mp4", "fake/7.mp4"))
    touch(tmp_path / "b", ("real/7.mp4", "fake/7.mp4"))
    options = LayoutOptions(dataset="same")
    first, second = (read_layout("folder", tmp_path / name, options) for name in "ab")
    assert first.sha256 == second.sha256
    touch(tmp_path / "b", ("fake/8.mp4",))
    assert read_layout("folder", tmp_path / "b", options).sha256 != first.sha256
