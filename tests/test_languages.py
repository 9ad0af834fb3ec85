from __future__ import annotations

import pytest

from bayling import languages
from bayling.errors import UserError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("code", "tag"),
    [
        ("de", "de"),
        ("DE", "de"),
        (" zh ", "zh"),
        ("deu", "de"),
        ("swh", "sw"),
        ("cmn", "zh"),
        ("zh-Hant", "zh-Hant"),
        ("zh_TW", "zh-Hant-TW"),
        ("zho_simpl", "zh"),
        ("zho_trad", "zh-Hant"),
        ("swh_Latn", "sw"),
        ("zho_Hans", "zh"),
        ("sr-Cyrl-RS", "sr-Cyrl-RS"),
        ("quy_Latn", "qu"),
        ("pbt_Arab", "ps"),
        ("prs", "fa-AF"),
        ("prs_Arab", "fa-AF"),
        ("ace_Latn", "ace"),
        ("ace_Arab", "ace-Arab"),
        ("lim_Latn", "li"),
        ("azb_Arab", "azb"),
    ],
)
def test_codes_of_every_spelling_become_bcp47_tags(code: str, tag: str) -> None:
    assert languages.parse(code) == tag


def test_every_known_language_can_be_named_by_its_own_subtag() -> None:
    assert len(languages.known()) > 100
    for subtag in languages.known():
        assert languages.parse(subtag).split("-")[0] in languages.known()


def test_cldr_has_words_in_some_languages_only() -> None:
    assert languages.has_words("zh-Hant") and languages.has_words("sr-Latn-RS")
    assert not languages.has_words("ace-Arab") and not languages.has_words("ar-Latn")


def test_an_unknown_language_is_refused_with_the_nearest_ones() -> None:
    with pytest.raises(UserError, match=r"knows no language 'swc'; near it: sw\b"):
        languages.parse("swc")


FLORES_200 = """
ace_Arab ace_Latn acm_Arab acq_Arab aeb_Arab afr_Latn ajp_Arab aka_Latn amh_Ethi apc_Arab arb_Arab
arb_Latn ars_Arab ary_Arab arz_Arab asm_Beng ast_Latn awa_Deva ayr_Latn azb_Arab azj_Latn bak_Cyrl
bam_Latn ban_Latn bel_Cyrl bem_Latn ben_Beng bho_Deva bjn_Arab bjn_Latn bod_Tibt bos_Latn bug_Latn
bul_Cyrl cat_Latn ceb_Latn ces_Latn cjk_Latn ckb_Arab crh_Latn cym_Latn dan_Latn deu_Latn dik_Latn
dyu_Latn dzo_Tibt ell_Grek eng_Latn epo_Latn est_Latn eus_Latn ewe_Latn fao_Latn fij_Latn fin_Latn
fon_Latn fra_Latn fur_Latn fuv_Latn gla_Latn gle_Latn glg_Latn grn_Latn guj_Gujr hat_Latn hau_Latn
heb_Hebr hin_Deva hne_Deva hrv_Latn hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn isl_Latn ita_Latn
jav_Latn jpn_Jpan kab_Latn kac_Latn kam_Latn kan_Knda kas_Arab kas_Deva kat_Geor knc_Arab knc_Latn
kaz_Cyrl kbp_Latn kea_Latn khm_Khmr kik_Latn kin_Latn kir_Cyrl kmb_Latn kmr_Latn kon_Latn kor_Hang
lao_Laoo lij_Latn lim_Latn lin_Latn lit_Latn lmo_Latn ltg_Latn ltz_Latn lua_Latn lug_Latn luo_Latn
lus_Latn lvs_Latn mag_Deva mai_Deva mal_Mlym mar_Deva min_Arab min_Latn mkd_Cyrl plt_Latn mlt_Latn
mni_Beng khk_Cyrl mos_Latn mri_Latn mya_Mymr nld_Latn nno_Latn nob_Latn npi_Deva nso_Latn nus_Latn
nya_Latn oci_Latn gaz_Latn ory_Orya pag_Latn pan_Guru pap_Latn pes_Arab pol_Latn por_Latn prs_Arab
pbt_Arab quy_Latn ron_Latn run_Latn rus_Cyrl sag_Latn san_Deva sat_Olck scn_Latn shn_Mymr sin_Sinh
slk_Latn slv_Latn smo_Latn sna_Latn snd_Arab som_Latn sot_Latn spa_Latn als_Latn srd_Latn srp_Cyrl
ssw_Latn sun_Latn swe_Latn swh_Latn szl_Latn tam_Taml tat_Cyrl tel_Telu tgk_Cyrl tgl_Latn tha_Thai
tir_Ethi taq_Latn taq_Tfng tpi_Latn tsn_Latn tso_Latn tuk_Latn tum_Latn tur_Latn twi_Latn tzm_Tfng
uig_Arab ukr_Cyrl umb_Latn urd_Arab uzn_Latn vec_Latn vie_Latn war_Latn wol_Latn xho_Latn ydd_Hebr
yor_Latn yue_Hant zho_Hans zho_Hant zsm_Latn zul_Latn
"""


def test_all_codes_of_flores_200_are_languages_with_names_and_scripts() -> None:
    tags = {code: languages.parse(code) for code in FLORES_200.split()}
    assert len(tags) == 204
    for code, tag in tags.items():
        assert languages.parse(tag) == tag
        assert languages.name_of(tag) and languages.name_of(tag) != tag
        script = code.split("_")[1].replace("Hang", "Kore")
        assert languages.script_of(tag) == script, code
    # Levantine Arabic stands there twice, and Twi is Akan.
    assert len(set(tags.values())) == 202


@pytest.mark.parametrize("code", ["ace-nonsense", "ace_Arab_ID", "ace_Arba"])
def test_a_part_that_a_language_without_words_does_not_have_is_refused(code: str) -> None:
    with pytest.raises(UserError, match="try 'ace', without the part after it"):
        languages.parse(code)


def test_a_part_that_fits_no_language_tag_is_refused_with_the_tag_without_it() -> None:
    with pytest.raises(UserError, match="try 'de', without the part after it"):
        languages.parse("de-nonsense-here")


@pytest.mark.parametrize(
    ("tag", "script"),
    [
        ("en", "Latn"),
        ("zh", "Hans"),
        ("zh-TW", "Hant"),
        ("zh-Hant", "Hant"),
        ("ru", "Cyrl"),
        ("ar", "Arab"),
        ("hi", "Deva"),
        ("ja", "Jpan"),
        ("ko", "Kore"),
        ("sr-Latn", "Latn"),
        ("sr", "Cyrl"),
        ("ace", "Latn"),
        ("ace-Arab", "Arab"),
        ("sat", "Olck"),
    ],
)
def test_the_script_is_the_one_a_language_is_usually_written_in(tag: str, script: str) -> None:
    assert languages.script_of(tag) == script


@pytest.mark.parametrize(
    ("tag", "in_language", "name"),
    [
        ("de", "en", "German"),
        ("de", "zh", "德语"),
        ("zh", "de", "Chinesisch"),
        ("sw", "zh", "斯瓦希里语"),
        ("ar", "ar", "العربية"),
        ("ace-Arab", "zh", "亚齐语 (阿拉伯文)"),
        ("cjk", "zh", "Chokwe"),
        ("de", "ace", "German"),
    ],
)
def test_a_language_has_its_name_in_another(tag: str, in_language: str, name: str) -> None:
    assert languages.name_of(tag, in_language) == name


def test_every_known_language_has_a_name_in_english_and_in_chinese() -> None:
    for tag in languages.known():
        assert languages.name_of(tag, "en") not in ("", tag)
        assert languages.name_of(tag, "zh") not in ("", tag)


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("Der 21. März", "de"),
        ("21 марта", "ru"),
        ("二〇二四年三月", "zh"),
        ("२१ मार्च", "hi"),
        ("٢١ مارس", "ar"),
        ("21日は木曜日です", "ja"),
        ("木曜日", "ja"),
        ("目曜日 목요일", "ko"),
        ("EUR 24 по курсу", "ru"),  # most of the letters
        ("12:30", "ru"),
        ("24 €", "hi"),
    ],
)
def test_a_text_is_in_the_script_of_its_language(text: str, tag: str) -> None:
    assert languages.in_script(text, tag)


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("21 March", "ru"),
        ("21 марта", "de"),
        ("木曜日", "ru"),
        ("in 5 days", "zh"),
        ("ひらがな", "zh"),
        ("नमस्ते", "ar"),
        ("", "en"),
        (" \n", "en"),
    ],
)
def test_a_text_in_another_script_or_without_any_is_not(text: str, tag: str) -> None:
    assert not languages.in_script(text, tag)


def test_letters_are_counted_and_digits_punctuation_and_marks_are_not() -> None:
    assert languages.letters_in_script("21. März, день", "de") == (4, 8)
    assert languages.letters_in_script("नमस्ते 5", "hi") == (4, 4)


@pytest.mark.parametrize(
    "text", ["", "21. März", "12:30", "день", "Tag день", "ひらがな", "नमस्ते 5"]
)
@pytest.mark.parametrize("tag", ["de", "ru", "ja", "hi", "xyz"])
def test_a_text_is_only_in_a_script_if_all_of_its_letters_are(text: str, tag: str) -> None:
    right, letters = languages.letters_in_script(text, tag)
    for _ in range(2):  # the second time its characters are known
        assert languages.only_in_script(text, tag) is (right == letters)
