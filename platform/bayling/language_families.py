"""Which family a language belongs to: how scores and losses over 100+ languages are grouped.

Genealogical branches as Ethnologue and Glottolog name them, one level below the large stocks
where those hold most of the languages (Germanic, not Indo-European).
"""

from __future__ import annotations

from functools import cache

OTHER = "other"

_FAMILIES = {
    "germanic": "af da de en fo fy is lb nb nds nl nn no sv yi",
    "romance": "ast ca es fr fur gl it oc pt rm ro sc",
    "slavic": "be bg bs cs dsb hr hsb mk pl ru sk sl sr uk",
    "baltic": "lt lv",
    "celtic": "br cy ga gd gv kw",
    "hellenic": "el",
    "albanian": "sq",
    "armenian": "hy",
    "indo-aryan": "as bho bn gu hi kok ks mai mr ne or pa sa sd si ur",
    "iranian": "ckb fa ku lrc mzn os ps tg",
    "uralic": "et fi hu se smn",
    "turkic": "az ba cv kk ky tk tr tt ug uz sah",
    "mongolic": "mn",
    "semitic": "am ar he mt ti",
    "berber": "kab shi tzm zgh",
    "cushitic": "om so",
    "chadic": "ha",
    "niger-congo": (
        "ak bem ee ff gaa ig ki kln lg ln lu luy mgo nd nr nso nyn rn rw sg sn ss st sw tn ts "
        "ve vun wo xh xog yo zu"
    ),
    "sinitic": "zh yue",
    "tibeto-burman": "bo dz ii my brx mni",
    "japonic": "ja",
    "koreanic": "ko",
    "kra-dai": "lo th za",
    "austroasiatic": "km vi",
    "austronesian": "ceb fil haw id jv mg mi ms su to",
    "dravidian": "kn ml ta te",
    "kartvelian": "ka",
    "basque": "eu",
    "american": "chr gn moh nv qu",
    "constructed": "eo ia vo",
}


@cache
def _by_language() -> dict[str, str]:
    return {tag: family for family, tags in _FAMILIES.items() for tag in tags.split()}


def family_of(tag: str) -> str:
    """The branch of the BCP-47 tag's language, such as `germanic`; `other` where it is unlisted."""
    return _by_language().get(tag.split("-")[0], OTHER)
