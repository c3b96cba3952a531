"""Which files are scans of a contrast, and whose head it is, as their names say it."""

import os
import shutil
from pathlib import Path

import pytest
from conftest import REPOSITORY
from test_volumes import image, save, series_of, touched

from cyclegan_tf import InputError
from cyclegan_tf.scans.folders import (
    WITH_AGENT,
    find_domains,
    find_scans,
    identify,
    list_images,
    same_heads,
)
from cyclegan_tf.scans.images import check_there

CASES = REPOSITORY.parent / "shared" / "cases"


def absence(path: Path) -> str:
    try:
        check_there(path)
    except InputError as error:
        return str(error)
    return ""


def case(name: str) -> Path:
    if not (CASES / name).is_dir():
        pytest.skip(f"the case {name} is absent")
    return CASES / name


def names(paths) -> list[str]:
    return [Path(path).name for path in paths]


def left(found) -> str:
    """What is said to be left out."""
    return next(sentence for sentence in found.sentences if sentence.startswith("Left out"))


# One name


@pytest.mark.parametrize(
    ("contrast", "given"),
    {
        "T1w": "001_T1_MPRAGE.nii.gz IXI002-Guys-0828-T1.nii.gz OAS1_0001_MR1_mpr-1_anon.img "
        "BraTS_001_t1.nii sub-01_T1w.nii.gz T1.mgz 3DT1.nii sagT1.png p7_T2_MPRAGE.nii "
        "PD_001_T1.nii "
        "3.T1_MPRAGE_SAG T1w_7.nii sub-01_ses-2_part-mag_T1w.nii sub-01_space-T2w_T1w.nii.gz "
        "T1_pre_contrast.nii ax_t1_se.nii BraTS-GLI-00000-000-t1n.nii.gz sT1W_3D_TFE.nii "
        "T1_post_op.nii post_training_T1.nii T1_post_mortem.nii T1_ohne_KM.nii KM_001_T1.nii "
        "T1_C1.nii T1_no_contrast.nii T1_pre_Gd.nii sub-01_acq-KM_T1w.nii T1_space.nii "
        "T1_Group_C.nii T1_high_contrast.nii S01_post_T1.nii CE12_T1.nii "
        "low_contrast_T1.nii sub-01_ses-post_T1w.nii sub-01_T1w_brain.nii.gz wT1.nii T1_brain.nii "
        "wmsub-01_T1w.nii anna_y_T1.nii y_anna_T1.nii c1_anna_T1.nii p1_T1.nii "
        "B1_T1.nii CT_01_T1.nii PH_01_T1.nii T1_to_FLAIR.nii T1_in_phase.nii "
        "T1_opp_phase.nii T1_orig_bias_n4.nii T1precontrast.nii T1pre_contrast.nii "
        "sub-01_ce-none_T1w.nii P1/T2/P1_T2_T1.nii p7/T1/p7_T1_brain.nii "
        "T1_bias_corrected.nii msub-01_T1w.nii 5_Ax_T1_FLAIR.nii T1FLAIR.nii GM_001_T1.nii "
        "ADNI_002_S_0295_MR_MPR__GradWarp__B1_Correction__N3__Scaled_Br_20070727172421_S1_I6.nii "
        "ADNI_002_S_0295_MR_MP-RAGE_br_raw_20060418193713091_1_S13408_I13721.dcm",
        "T2w": "001_T2_TSE.nii.gz IXI002-Guys-0828-T2.nii.gz BraTS_001_t2.nii sub-01_T2w.nii "
        "P1/T1/P1_T1_T2.nii p7/T2/p7_T2_to_T1.nii p7/T2_T1.nii "
        "T2_reg.nii T2_to_T1.nii sub-01_ses-T1_T2w.nii sub-T1x_T2w.nii t2_tse_tra.nii p7-HASTE.nii "
        "PD_T2_TSE.nii sub-1_mod-T1w_T2w.nii 001_T2w_gd.nii sT2W_TSE.nii T2raw.mgz",
        "PDw": "IXI002-PD.nii.gz sub-01_PDw.nii.gz",
        "FLAIR": "sub-01_FLAIR.nii.gz p7_T2_FLAIR.nii BraTS_001_flair.nii T2FLAIR.nii "
        "BraTS-GLI-00000-000-t2f.nii.gz sT2W_FLAIR.nii",
        WITH_AGENT: "BraTS_001_t1ce.nii T1POST.nii.gz t1gd.nii 001_T1_C.nii T1+C.nii "
        "sub-01_ce-gadolinium_T1w.nii.gz T1_MPRAGE_post_contrast.nii T1_gadovist.nii T1_sag_KM.nii "
        "T1postcontrast.nii T1_FLAIR_CE.nii T1_post.nii t1_mpr_gd.nii BRAVO_+C.nii "
        "Ax_T1_FSPGR_POST_reg.nii CET1.nii T1_w_contrast.nii "
        "t1_mprage_tra_p2_KM_001.png T1_nach_KM.nii SAG_T1_C+.nii T1_contrast.nii T1_Dotarem.nii "
        "contrast_T1.nii Post_T1.nii post-sagT1w.nii POST_AX_T1.nii T1_contrast_enhanced.nii",
        "mask or labels": "BraTS_001_seg.nii.gz sub-01_mod-T1w_defacemask.nii.gz aparc+aseg.mgz "
        "p7_T1_brain_mask.nii LESION.nii.gz sub-01_desc-brain_mask.nii sub-01_dseg.nii labels.nii "
        "T1_fast_pveseg.nii T1w_BrainSegmentationPosteriors01.nii segm.nii T1_ROI1.nii c1T1.nii "
        "c2sub-01_T1w.nii smwc1sub-01_T1w.nii T1_fast_mixeltype.nii T1_gm.nii p7_T1_GM_prob.nii "
        "T1_biascorr_bet_skull.nii T1_edges.nii T1_initfast2_brain_mask2.nii "
        "T1_parcellation.nii mwp1sub-01_T1w.nii p0sub-01_T1w.nii sub-01_label-GM_probseg.nii",
        "phase or part of a complex image": "sub-01_part-phase_T1w.nii "
        "sub-1_part-real_T1w.nii T1_ph.nii 9_t1_se_real.nii",
        "deformation": "T1_to_MNI_nonlin_field.nii MNI_to_T1_nonlin_coeff.nii T1_warpfield.nii "
        "T1_jacobian.nii T1_1InverseWarp.nii T1_SubjectToTemplateLogJacobian.nii "
        "y_T1.nii iy_T1w.nii y_sub-01_T1w.nii iy_sub-01_ses-2_T1w.nii",
        "field map": "sub-1_phasediff.nii sub-1_magnitude1.nii p7_b0.nii fieldmap.nii T1_B1map.nii "
        "BiasField_T1.nii bias_field_T1.nii T1_fast_bias.nii T1_to_MNI_nonlin_jac.nii "
        "T1_fast_totbias.nii T1w_MPR1/100307_3T_BIAS_32CH.nii T2w_SPC1/100307_3T_BIAS_BC.nii",
        "map": "T1_thickness.nii T1_snr.nii sub-01_T1map.nii T2_map.nii T1rho.nii "
        "t1_mp2rage_sag_p3_T1_Images.nii T2_star_map.nii "
        "T1wDividedByT2w.nii T1_CorticalThickness.nii T1_rho.nii "
        "T1w_map.nii T1_mapping.nii",
        "T2*w": "T2star.nii sub-01_T2starw.nii T2*.nii T2_star.nii T2-star.nii",
        "made by this program": "sub-01_desc-synthetic_T2w.nii.gz a_desc-trust_T1w.nii.gz",
        "diffusion or function": "IXI002_DTI.nii sub-01_dwi.nii T1_dwi.nii sub-01_bold.nii",
        "": "anna.nii.gz mT1.nii wmT1.nii rT1.nii p1T1.nii y_001.png "
        "Image #10.png BraTS_001_0000.nii.gz T10.nii 17.png st1.nii "
        "vertebra_T12.nii FA_to_T1.nii atlas2_in_T1_space.nii",
    }.items(),
)
def test_the_contrast_is_a_word_of_the_name_or_the_suffix_of_bids(contrast, given):
    for name in given.replace("Image #", "Image_#").split():
        assert identify(Path(name), Path()).contrast == contrast, name


@pytest.mark.parametrize(
    ("t1", "t2", "subject"),
    [
        ("001_T1_MPRAGE.nii.gz", "001_T2_TSE.nii.gz", "001"),
        ("IXI002-Guys-0828-T1.nii.gz", "IXI002-Guys-0828-T2.nii.gz", "IXI002-Guys-0828"),
        ("OAS1_0001_MR1_mpr-1_anon.nii", "OAS1_0001_MR2_T2w.nii", "OAS1_0001"),
        ("sub-01_ses-1_run-2_T1w.nii.gz", "sub-01_ses-2_acq-tse_T2w.nii.gz", "sub-01"),
        ("BraTS_001_t1.nii.gz", "BraTS_001_t2.nii.gz", "BraTS_001"),
        ("p07/T1.nii.gz", "p07/T2_reg.nii.gz", "p07"),
        ("BraTS_001/BraTS_001_t1.nii", "BraTS_001/BraTS_001_t2.nii", "BraTS_001"),
        ("sub-3/ses-1/anat/T1.nii", "sub-3/ses-2/anat/scan.nii", "sub-3"),
        ("p07/T1/SE1", "p07/T2/SE2", "p07"),
        ("p07_20240101_T1.nii", "p07_20250101_T2.nii", "p07"),
        ("anna baseline T1.nii", "anna follow-up T2.nii", "anna"),
        ("T1w_7.nii", "T2w_7.nii", "7"),
        ("Mu\u0308ller_T1.nii", "M\u00fcller_T2.nii", "M\u00fcller"),
        ("p7_AxT1FLAIR.nii", "p7_T2FLAIR.nii", "p7"),
        ("run-1_001_T1.nii", "run-2_001_T2.nii", "001"),
        ("AB1_T1_MPRAGE_20200101101010_3.nii", "AB1_T2_TSE_20200101101010_15.nii", "AB1"),
        ("T1_MPRAGE-1.nii", "T2_TSE-1.nii", "1"),
        ("BraTS-GLI-00-000-t1n.nii.gz", "BraTS-GLI-00-001-t2f.nii.gz", "BraTS-GLI-00"),
        ("BraTS-MEN-RT-1-1_t1c.nii", "BraTS-MEN-RT-1-2/BraTS-MEN-RT-1-2_t2w.nii", "BraTS-MEN-RT-1"),
        ("BraTS-GoAT-00-t1n.nii.gz", "BraTS-GoAT-00-t2w.nii.gz", "BraTS-GoAT-00"),
        ("UPENN-GBM-01_11_T1.nii.gz", "UPENN-GBM-01_21_T2.nii.gz", "UPENN-GBM-01"),
        ("1/T1w_MPR2/1_3T_T1w_MPR2.nii", "1/T2w_SPC1/1_3T_T2w_SPC1.nii", "1"),
        ("1/unprocessed/3T/T1w_MPR1/1_3T_T1w_MPR1.nii", "1/MNINonLinear/T2w.nii", "1"),
        ("1/T1w/T1w_acpc_dc_restore.nii", "1/MNINonLinear/T2w_restore.2.nii", "1"),
        ("OAS1_1_MR1/RAW/OAS1_1_MR1_mpr-1.nii", "OAS1_1_MR1/PROCESSED/T2.nii", "OAS1_1"),
        ("Patient_01/Raw_Data/3DT1.nii", "Patient_01/Preprocessed_Data/T2.nii", "Patient_01"),
        ("p7/session_1/T1.nii", "p7/session_2/T2.nii", "p7"),
        ("p7/ses-1/T1.nii", "p7/Follow-up 1/T2.nii", "p7"),
        ("p7/week-000-1/T1.nii", "p7/week-044/T2.nii", "p7"),
        ("p7/2010-05-03/T1.nii", "p7/2011-05-03/T2.nii", "p7"),
        ("p7_week12_T1.nii", "p7_postop_T2.nii", "p7"),
        (
            "PPMI_3102_MR_MPRAGE_GRAPPA__br_raw_20130318123456789_11_S184213_I363953.nii",
            "PPMI_3102_MR_Axial_PD-T2_TSE__br_raw_20140318123456789_11_S184214_I363955.nii",
            "PPMI_3102",
        ),
        (
            "TCGA-02-0003/06-08-1997-NA-MRI BRAIN WWO CONTRAMR-81239/11.000000-AX T1-57332",
            "TCGA-02-0003/07-09-1998-81240/5.000000-AX T2 FSE-62644",
            "TCGA-02-0003",
        ),
        (
            "002_S_0295/MPR/ADNI_002_S_0295_MR_MPR__N3__Scaled_Br_20070727172421_S1_I6.nii",
            "002_S_0295/ADNI_002_S_0295_MR_Axial_PD_T2_FSE_br_raw_20060418193713091_1_S2_I1.nii",
            "002_S_0295",
        ),
    ],
)
def test_a_subjects_t1_and_t2_have_its_name_alone_in_common(t1, t2, subject):
    root = Path("data")
    assert [identify(root / name, root).subject for name in (t1, t2)] == [subject] * 2


def test_other_subjects_keep_their_own_names():
    for given in (
        "study2_0001 study2_0002",
        "OAS1_0001_MR1 OAS1_0002_MR1",
        "A-1_T1 A-2_T1",
        "T1_1 T1_2",
    ):
        first, second = (identify(Path(f"{name}.nii")).subject for name in given.split())
        assert first != second, given


def test_a_visit_is_what_its_t1_and_t2_have_in_common_besides():
    scans = [
        identify(Path(f"{name}.nii")).scan for name in ("p7_ses-1_T1", "p7_ses-1_T2", "p7_ses-2_T2")
    ]
    assert scans[0] == scans[1] != scans[2]
    assert identify(Path("sub-01_ses-2_run-1_T1w.nii")).scan == "sub-01_ses-2"


def heads(t1, t2):
    sides = [[identify(Path(f"{name}.nii")) for name in side.split()] for side in (t1, t2)]
    return [[one.subject for one in side] for side in same_heads(*sides)]


def test_words_of_all_names_of_one_side_alone_say_nothing_of_a_person():
    t1, t2 = heads("BraTS_001_0000 BraTS_002_0000", "BraTS_002_0002 BraTS_001_0002")
    assert t1 == t2[::-1]
    t1, t2 = heads("anna-first berta-first", "Berta-second Carla-second")
    assert t1[1] == t2[0] and len({*t1, *t2}) == 3
    t1, t2 = heads("A_001 A_002", "A_001 B_001")  # A is a hospital
    assert t1[0] == t2[0] and len({*t1, *t2}) == 3


def test_where_each_folder_is_a_person_the_numbers_of_their_series_say_nothing():
    root = Path("data")
    x = [identify(root / name, root) for name in ("A/3_t1_mprage.nii", "B/4_t1_mprage.nii")]
    y = [identify(root / name, root) for name in ("A/15_t2_tse.nii", "B/9_t2_tse.nii")]
    assert [[one.subject for one in side] for side in same_heads(x, y)] == [["A", "B"]] * 2
    assert [one.subject for side in same_heads(x, y[:1]) for one in side] == ["A", "B", "A"]
    x = [identify(root / f"{site}/p{n}_T1.nii", root) for site in "AB" for n in (1, 2)]
    y = [identify(root / f"{site}/p{n}_T2.nii", root) for site in "AB" for n in (3, 4)]
    subjects = [one.subject for side in same_heads(x, y) for one in side]
    assert len({*subjects}) == len(subjects)  # such a folder is a site


def test_two_people_alone_are_not_taken_for_one():
    for t1, t2 in (("anna", "berta"), ("s_01 s_01", "s_02")):
        (first, *_), (second, *_) = heads(t1, t2)
        assert first != second


# A folder


def test_of_a_folder_only_what_its_names_say_is_of_the_contrast(tmp_path):
    folder = case("06-every-file-of-a-folder-is-a-T1")
    for place, t1 in (("anat", "sub-01_T1w.nii.gz"), ("BraTS_001", "BraTS_001_t1.nii.gz")):
        found = find_scans(folder / place, "T1w")
        assert names(found.scans) == [t1] and len(found.sentences) == 1
        others = {*names((folder / place).iterdir())} - {t1}
        assert all(name in left(found) for name in others) and t1 not in left(found)
        assert names(find_scans(folder / place, "T2w").scans) == [
            t1.replace("1w", "2w").replace("t1", "t2")
        ]


def test_names_that_say_nothing_are_all_taken_unless_others_say_the_contrast(tmp_path):
    touched(tmp_path, "10.nii.gz", "9.NII", "b_T2w.nii", "c_seg.nii")
    found = find_scans(tmp_path, "T1w")
    assert names(found.scans) == ["9.NII", "10.nii.gz"]
    assert "1 T2w, b_T2w.nii; 1 mask or labels, c_seg.nii." in left(found)
    touched(tmp_path, "d_T1w.nii")
    found = find_scans(tmp_path, "T1w")
    assert names(found.scans) == ["d_T1w.nii"]
    assert "2 without a contrast in the name, 9.NII, 10.nii.gz" in left(found)


def test_images_are_chosen_as_volumes_are(tmp_path):
    touched(tmp_path, *(f"p7_{kind}_{n}.png" for kind in ("t1", "t2", "seg") for n in (1, 10, 9)))
    found = find_scans(tmp_path, "T1w")
    assert names(found.scans) == ["p7_t1_1.png", "p7_t1_9.png", "p7_t1_10.png"]
    assert "3 T2w, " in left(found) and "3 mask or labels, " in left(found)


def test_scans_after_a_contrast_agent_are_taken_only_where_there_is_no_other_and_that_is_said(
    tmp_path,
):
    touched(tmp_path, "p7_t1ce.nii", "p7_t2.nii")
    found = find_scans(tmp_path, "T1w")
    assert names(found.scans) == ["p7_t1ce.nii"] and "contrast agent" in found.sentences[0]
    touched(tmp_path, "p8_t1.nii")
    found = find_scans(tmp_path, "T1w")
    assert names(found.scans) == ["p8_t1.nii"]
    assert f"1 {WITH_AGENT}, p7_t1ce.nii" in left(found)


def test_of_a_bids_data_set_the_suffix_and_the_part_decide(tmp_path):
    anat = "sub-{0}/ses-1/anat/sub-{0}_ses-1_"
    touched(
        tmp_path,
        *(
            anat.format("01") + name
            for name in ("part-mag_T1w.nii", "part-phase_T1w.nii", "T2w.nii")
        ),
        *(anat.format("02") + f"run-{n}_T1w.nii.gz" for n in (1, 2)),
        anat.format("02") + "acq-mp2rage_UNIT1.nii.gz",
        "sub-02/ses-1/anat/c1sub-02_ses-1_T1w.nii",
        anat.format("02") + "T1w.json",
        "sub-10/anat/sub-10_ce-gd_T1w.nii.gz",
        "sub-10/anat/sub-10_angio.nii.gz",
        "derivatives/x/sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/ses-1/func/sub-01_ses-1_T1w.nii",
    )
    found = find_scans(tmp_path, "T1w")
    runs = [f"sub-02_ses-1_run-{n}_T1w.nii.gz" for n in (1, 2)]
    assert names(found.scans) == ["sub-01_ses-1_part-mag_T1w.nii", *runs]
    for name, kind in (
        ("sub-01_ses-1_part-phase_T1w.nii", "phase or part of a complex image"),
        ("sub-01_ses-1_T2w.nii", "T2w"),
        ("sub-02_ses-1_acq-mp2rage_UNIT1.nii.gz", "part of MP2RAGE"),
        ("sub-10_ce-gd_T1w.nii.gz", WITH_AGENT),
        ("sub-10_angio.nii.gz", "angiography or susceptibility"),
        ("c1sub-02_ses-1_T1w.nii", "no name of BIDS"),
    ):
        assert f"1 {kind}, {name}" in left(found)
    with pytest.raises(InputError, match="holds no FLAIR, but .*T2w.*: expected names"):
        find_scans(tmp_path, "FLAIR")


def test_folders_of_each_subject_are_entered_where_a_folder_holds_no_scan_itself(tmp_path):
    touched(
        tmp_path, "p10/T1.nii.gz", "p9/visit 1/T1.nii.gz", "p9/visit 1/T2.nii.gz", "p9/notes.txt"
    )
    (tmp_path / "p2" / "T1").mkdir(parents=True)
    save(series_of(image()), tmp_path / "p2" / "T1" / "SE1")
    (tmp_path / "p9" / "round").symlink_to(tmp_path)
    found = find_scans(tmp_path, "T1w")
    below = ["p2/T1", "p9/visit 1/T1.nii.gz", "p10/T1.nii.gz"]
    assert [path.relative_to(tmp_path).as_posix() for path in found.scans] == below
    touched(tmp_path, "here_T1.nii.gz")
    assert names(find_scans(tmp_path, "T1w").scans) == ["here_T1.nii.gz", "T1"], "DICOM, too"


def test_a_dicom_series_somewhere_on_a_disk_is_found():
    found = find_scans(case("14-disk-with-dicomdir") / "cd", "T1w")
    assert len(found.scans) == 1


def test_hidden_files_and_the_second_file_of_a_pair_are_no_scans(tmp_path):
    touched(tmp_path, "a.img", "a.hdr", "b.hdr", "._c.nii", ".d.nii.gz", "__MACOSX/e.nii")
    assert names(find_scans(tmp_path, "T1w").scans) == ["a.img", "b.hdr"]


def test_numbered_channels_are_refused_since_no_name_says_which_is_the_t1(tmp_path):
    touched(tmp_path, *(f"BraTS_{case:03}_000{n}.nii.gz" for case in (1, 2) for n in range(4)))
    with pytest.raises(InputError, match=r"4 channels .*nnU-Net.*_0000 to _0003"):
        find_scans(tmp_path, "T1w")
    for path in tmp_path.glob("*_000[123].nii.gz"):
        path.unlink()
    assert len(find_scans(tmp_path, "T1w").scans) == 2
    touched(tmp_path / "people", *(f"study_{n:04}.nii" for n in range(1, 9)))
    assert len(find_scans(tmp_path / "people", "T1w").scans) == 8


# What is not there


def test_links_that_lead_nowhere_are_named_if_they_are_of_the_contrast(tmp_path):
    root = touched(tmp_path / "bids", "sub-01/anat/sub-01_T1w.nii.gz")
    for name in ("sub-02_ses-1_T1w.nii.gz", "sub-02_ses-1_T2w.nii.gz"):
        path = touched(root, f"sub-02/ses-1/anat/{name}") / "sub-02/ses-1/anat" / name
        path.unlink()
        path.symlink_to("../.git/annex/objects/gone")
    first, second = find_scans(root, "T1w").scans
    assert not absence(first) and "a link that leads nowhere" in absence(second)
    shutil.rmtree(root / "sub-01")
    assert find_scans(root, "T1w").scans == [second]


@pytest.mark.parametrize("ending", ["nii.gz", "png"])
def test_in_a_plain_folder_too(tmp_path, ending):
    touched(tmp_path, f"a.{ending}")
    (tmp_path / f"b.{ending}").symlink_to(tmp_path / "gone")
    first, second = find_scans(tmp_path, "T1w").scans
    assert not absence(first) and "a link that leads nowhere" in absence(second)


def test_folders_of_which_nothing_is_taken_are_named(tmp_path):
    touched(tmp_path / "images", "a.png", "more/b.png", ".hidden/c.png")
    touched(tmp_path / "volumes", "a.nii.gz", "more/b.nii.gz")
    touched(tmp_path / "bids", "sub-01/anat/sub-01_T1w.nii.gz", "derivatives/x.txt")
    (tmp_path / "bids/more").symlink_to("nowhere")
    (tmp_path / "bids/sub-more").symlink_to("nowhere")
    for folder, name in (("images", "more"), ("volumes", "more"), ("bids", "sub-more")):
        found = find_scans(tmp_path / folder, "T1w")
        (sentence,) = found.sentences
        assert len(found.scans) == 1
        assert sentence == f"Nothing is taken from these folders in {tmp_path / folder}: {name}."


def test_images_beside_volumes_and_volumes_that_are_not_read_are_listed(tmp_path):
    touched(tmp_path, "p1/T1.nii.gz", "p1/preview.png", "p1/T1.json", "p2/T1.nii", "p2/T1.nii.zst")
    touched(tmp_path / "p1", "._a.png")
    (sentence,) = find_scans(tmp_path, "T1w").sentences
    assert sentence.endswith(", as volumes are beside it: preview.png, T1.nii.zst.")


def test_a_pointer_that_was_not_fetched_is_said_to_be_one(tmp_path):
    (tmp_path / "a.nii.gz").write_text("/annex/objects/SHA256E-s1--0.nii.gz\n")
    (tmp_path / "b.nii.gz").write_text("version https://git-lfs.github.com/spec/v1\n")
    touched(tmp_path, "c.nii.gz")
    found = find_scans(tmp_path, "T1w")
    assert names(found.scans) == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    assert all("pointer of git-annex or Git LFS" in absence(path) for path in found.scans[:2])
    assert not absence(found.scans[2]) and not absence(tmp_path)
    os.mkfifo(tmp_path / "d.nii.gz")
    assert "is no file" in absence(tmp_path / "d.nii.gz")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["notes.txt", "zebra.doc"], "notes.txt is no image"),
        (["sub/notes.txt", "sub2/a.txt"], "folders below: 2"),
        ([".hidden"], "folders below: 0"),
    ],
)
def test_a_folder_without_scans_says_what_it_holds(tmp_path, given, found):
    touched(tmp_path, *given)
    with pytest.raises(InputError) as raised:
        find_scans(tmp_path, "T1w")
    assert f"is no folder of scans ({found})" in str(raised.value)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    for look in (list_images, lambda folder: find_scans(folder, "T1w")):
        with pytest.raises(InputError, match="gone cannot be read as a folder .No such file"):
            look(tmp_path / "gone")


# Training sets


@pytest.mark.parametrize(
    "given",
    [
        "p1/T1.nii.gz p1/T2.nii.gz p2/T1.nii.gz p2/T2.nii.gz p2/LESION.nii.gz",
        "001_T1_MPRAGE.nii.gz 001_T2_TSE.nii.gz",
        "BraTS_001/BraTS_001_t1.nii.gz BraTS_001/BraTS_001_t2.nii.gz",
        "p1/T1/a.nii.gz p1/T2/b.nii.gz p2/T1/c.nii.gz p2/T2/d.nii.gz",
    ],
)
def test_one_folder_of_volumes_whose_names_say_t1_and_t2_is_a_training_set(tmp_path, given):
    touched(tmp_path, *given.split())
    assert find_domains(tmp_path) == (tmp_path, tmp_path)
    t1, t2 = (find_scans(tmp_path, contrast).scans for contrast in ("T1w", "T2w"))
    assert len(t1) == len(t2) > 0 and not {*t1} & {*t2}
    sides = [[identify(path, tmp_path) for path in side] for side in (t1, t2)]
    whose = [[one.subject for one in side] for side in same_heads(*sides)]
    assert whose[0] == whose[1] and len({*whose[0]}) == len(t1)


def test_the_real_pairs_are_a_training_set_whose_heads_are_known():
    folder = REPOSITORY.parent / "shared" / "data" / "real" / "pairs"
    if not folder.is_dir():
        pytest.skip("the real pairs are absent")
    assert find_domains(folder) == (folder, folder)
    found = find_scans(folder, "T1w")
    assert names(found.scans) == ["T1.nii.gz"] * 5
    assert all(f" {kind}, " in left(found) for kind in ("T2w", "FLAIR", "mask or labels"))
