"""What the rendered catalogue sells: categories, values, how often, how often unlabelled, the text beside.

Knows nothing of pictures or files. Counts and missing rates (percent) follow the label statistics published
for the Kaggle `visual-taxonomy` challenge; counts are tempered: a small catalogue shows rare values too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

TEMPER = 0.7  # power on the published counts


@dataclass(frozen=True)
class Factor:
    """Attributes decided together: each choice is a weight and one value per name."""

    names: tuple[str, ...]
    choices: tuple[tuple[float, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Line:
    """One category: its attributes in order, their missing rates (percent), what decides its values."""

    category: str
    share: float
    noun: str
    price: float
    missing: Mapping[str, float]
    factors: tuple[Factor, ...]
    caption: tuple[str, ...]

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attribute names in the order of attr_1, attr_2, ..."""
        return tuple(self.missing)

    def values(self, name: str) -> list[str]:
        """List the values of one attribute, the first mentioned first."""
        factor = next(factor for factor in self.factors if name in factor.names)
        place = factor.names.index(name)
        return list(dict.fromkeys(values[place] for _, values in factor.choices))


def _weights(text: str) -> dict[str, float]:
    """Read `value number, value number, ...`; a value may hold spaces."""
    pairs = (" ".join(item.split()).rsplit(" ", 1) for item in text.split(","))
    return {value: float(number) for value, number in pairs}


def _factor(names: str, choices: str) -> Factor:
    """Read a factor: names, and per choice as many values, separated by ` | `."""
    drawn = ((number, tuple(values.split(" | "))) for values, number in _weights(choices).items())
    return Factor(tuple(names.split(" | ")), tuple(drawn))


MEN = Line(
    category="Men Tshirts",
    share=13,
    noun="Tshirts",
    price=260.0,
    missing=_weights("color 17.3, neck 15.5, pattern 20.3, print_or_pattern_type 18.1, sleeve_length 17.8"),
    factors=(
        _factor("color", "default 2132, multicolor 1821, white 1253, black 804"),
        _factor("neck", "polo 3085, round 3059"),
        _factor(
            "pattern | print_or_pattern_type",
            """
                solid | solid 3190, printed | default 1970, printed | typography 781
            """,
        ),
        _factor("sleeve_length", "short sleeves 5647, long sleeves 330"),
    ),
    caption=("color", "neck", "print_or_pattern_type", "sleeve_length"),
)
SAREES = Line(
    category="Sarees",
    share=22,
    noun="Sarees",
    price=620.0,
    missing=_weights(
        """
            blouse_pattern 57, border 3.6, border_width 13.5, color 2.5, occasion 3.8,
            ornamentation 72.7, pallu_details 51.5, pattern 10.3, print_or_pattern_type 22, transparency 2.9
        """
    ),
    factors=(
        _factor("blouse_pattern", "same as saree 5230, same as border 1611, default 856, solid 188"),
        _factor(
            "border | border_width",
            """
                zari | small border 5500, zari | big border 3000,
                woven design | small border 3900, woven design | big border 2300,
                temple border | small border 500, temple border | big border 800,
                default | small border 855, solid | small border 411, no border | no border 400
            """,
        ),
        _factor(
            "color",
            """
                multicolor 5142, cream 4807, default 4078, white 2672, navy blue 339, pink 339,
                yellow 273, green 246
            """,
        ),
        _factor("occasion", "party 10407, traditional 4973, daily 1322, wedding 947"),
        _factor("ornamentation", "jacquard 4195, default 540, tassels and latkans 275"),
        _factor("pallu_details", "woven design 3724, zari woven 2678, same as saree 2108, default 386"),
        _factor(
            "pattern | print_or_pattern_type",
            """
                zari woven | default 3000, zari woven | ethnic motif 2900,
                zari woven | peacock 2500, zari woven | floral 2300, zari woven | elephant 600,
                zari woven | applique 400, solid | solid 1106, woven design | floral 400,
                woven design | ethnic motif 250, woven design | checked 250,
                default | applique 350, default | default 300, default | botanical 200,
                printed | floral 180, printed | botanical 120
            """,
        ),
        _factor("transparency", "no 14835, yes 2983"),
    ),
    caption=("color", "border", "border_width", "print_or_pattern_type"),
)

KURTIS = Line(
    category="Kurtis",
    share=17,
    noun="Kurtis",
    price=340.0,
    missing=_weights(
        """
            color 2.8, fit_shape 52.6, length 50.2, occasion 5.7, ornamentation 52.1, pattern 43.6,
            print_or_pattern_type 43.7, sleeve_length 1.8, sleeve_styling 1.9
        """
    ),
    factors=(
        _factor(
            "color",
            """
                black 1395, red 1376, maroon 1071, navy blue 717, blue 426, multicolor 407,
                yellow 353, green 258, pink 220, purple 170, grey 137, white 66, orange 33
            """,
        ),
        _factor("fit_shape", "a-line 2066, straight 1165"),
        _factor("length", "knee length 2048, calf length 1352"),
        _factor("occasion", "daily 5961, party 470"),
        _factor("ornamentation", "net 2287, default 979"),
        _factor("pattern | print_or_pattern_type", "default | default 2060, solid | solid 1786"),
        _factor(
            "sleeve_length | sleeve_styling",
            """
                three-quarter sleeves | regular 5666, short sleeves | regular 831,
                sleeveless | sleeveless 215
            """,
        ),
    ),
    caption=("color", "fit_shape", "length", "sleeve_length"),
)

WOMEN = Line(
    category="Women Tshirts",
    share=23,
    noun="Women Tshirts",
    price=230.0,
    missing=_weights(
        """
            color 7.9, fit_shape 21.2, length 11.7, pattern 13.9, print_or_pattern_type 9.3,
            sleeve_length 14.6, sleeve_styling 17.7, surface_styling 90
        """
    ),
    factors=(
        _factor(
            "color",
            """
                white 4650, default 4297, black 2999, yellow 1838, multicolor 1392, pink 1380,
                maroon 729
            """,
        ),
        _factor("fit_shape", "regular 12376, loose 1483, boxy 942"),
        _factor("length", "regular 8187, crop 6711, long 1682"),
        _factor(
            "pattern | print_or_pattern_type",
            """
                printed | typography 5483, printed | funky print 4172, printed | quirky 2179,
                printed | graphic 2038, printed | default 1300, default | default 1040,
                solid | solid 908
            """,
        ),
        _factor(
            "sleeve_length | sleeve_styling",
            """
                short sleeves | regular sleeves 13000, short sleeves | cuffed sleeves 750,
                long sleeves | regular sleeves 1400, long sleeves | cuffed sleeves 90,
                default | regular sleeves 878
            """,
        ),
        _factor("surface_styling", "default 483, applique 80"),
    ),
    caption=("color", "print_or_pattern_type", "length", "sleeve_length"),
)

TOPS = Line(
    category="Women Tops & Tunics",
    share=25,
    noun="Tops & Tunics",
    price=290.0,
    missing=_weights(
        """
            color 26, fit_shape 29.8, length 31.2, neck_collar 29.2, ocassion 33.9, pattern 30.5,
            print_or_pattern_type 30.5, sleeve_length 27.4, sleeve_styling 33.9,
            surface_styling 62.2
        """
    ),
    factors=(
        _factor(
            "color",
            """
                black 2703, white 2433, default 1983, pink 1532, blue 945, yellow 921, red 802,
                maroon 797, green 666, multicolor 456, navy blue 423, peach 397
            """,
        ),
        _factor("fit_shape", "fitted 5523, regular 4846, boxy 2033, default 935"),
        _factor("length", "regular 7359, crop 5707"),
        _factor(
            "neck_collar",
            """
                round neck 6939, high 1845, square neck 1213, v-neck 1091, default 1082,
                sweetheart neck 800, stylised 481
            """,
        ),
        _factor("ocassion", "casual 12358, party 209"),
        _factor(
            "pattern | print_or_pattern_type",
            """
                solid | solid 7755, printed | typography 1562, printed | quirky 830,
                printed | graphic 586, printed | floral 496, printed | default 900,
                default | default 941
            """,
        ),
        _factor(
            "sleeve_length | sleeve_styling",
            """
                short sleeves | regular sleeves 4500, short sleeves | puff sleeves 1700,
                short sleeves | default 1000, long sleeves | regular sleeves 2300,
                long sleeves | puff sleeves 700, long sleeves | default 300,
                three-quarter sleeves | regular sleeves 1100,
                three-quarter sleeves | puff sleeves 400, three-quarter sleeves | default 300,
                sleeveless | sleeveless 1000
            """,
        ),
        _factor(
            "surface_styling",
            """
                knitted 3628, default 1108, ruffles 819, tie-ups 620, waist tie-ups 582,
                applique 424
            """,
        ),
    ),
    caption=("color", "neck_collar", "sleeve_styling", "print_or_pattern_type"),
)

CATEGORIES = (MEN, SAREES, KURTIS, WOMEN, TOPS)


def values_of(line: Line, rng: Random) -> dict[str, str]:
    """Draw the true values of one product, every attribute of its category, in their order."""
    drawn: dict[str, str] = {}
    for factor in line.factors:
        weights = [weight**TEMPER for weight, _ in factor.choices]
        values = rng.choices(factor.choices, weights)[0][1]
        drawn.update(zip(factor.names, values, strict=True))
    return {name: drawn[name] for name in line.attributes}


MAKERS = (
    "Myra",
    "Kashvi",
    "Aagam",
    "Urbane",
    "Trendy",
    "Chitrarekha",
    "Jivika",
    "Abhisarika",
    "Banita",
    "Pretty",
)
PRAISE = (
    "Fabulous",
    "Refined",
    "Stylish",
    "Graceful",
    "Fashionable",
    "Latest",
    "Classic",
    "Sensational",
    "Designer",
)
FABRICS = {"Cotton": 1.1, "Polyester": 0.85, "Rayon": 1.0, "Cotton Blend": 1.0, "Crepe": 0.95}
SILKS = {"Art Silk": 1.0, "Cotton Silk": 1.15, "Georgette": 0.85, "Organza": 1.2, "Banarasi Silk": 1.7}
SHADES = {
    "maroon": "Wine",
    "navy blue": "Midnight",
    "cream": "Ivory",
    "yellow": "Mustard",
    "green": "Bottle Green",
    "pink": "Rose",
    "red": "Cherry",
    "blue": "Royal",
    "white": "Pearl",
    "peach": "Blush",
}
DEARER = {
    "wedding": 1.5,
    "party": 1.2,
    "big border": 1.15,
    "zari woven": 1.2,
    "typography": 1.05,
    "knitted": 1.1,
    "long sleeves": 1.08,
    "polo": 1.12,
    "calf length": 1.1,
    "jacquard": 1.1,
}
CARE = (
    "Machine wash cold.",
    "Gentle hand wash.",
    "Dry clean recommended for first wash.",
    "Wash dark colours apart.",
)
SIZES = ("Sizes: S, M, L, XL.", "Free size.", "Sizes: M, L, XL, XXL.", "True to size; see the size chart.")


def listing(line: Line, true: Mapping[str, str], rng: Random) -> dict[str, object]:
    """Write what a shop would: title, description and price in rupees; some prices are missing.

    A title praises more than it tells: it spells no label, only now and then a trade name of the colour.
    """
    fabric, factor = rng.choice(list((SILKS if line is SAREES else FABRICS).items()))
    pack = rng.choices((1, 2, 3), (86, 10, 4))[0]
    words = [rng.choice(MAKERS), rng.choice(PRAISE), line.noun]
    shade = SHADES.get(true["color"])
    if shade and rng.random() < 0.25:
        words.insert(2, shade)
    if pack > 1:
        words.append(f"(Pack of {pack})")
    price = line.price * factor * pack**0.85 * rng.lognormvariate(0, 0.14)
    for value in true.values():
        price *= DEARER.get(value, 1.0)
    text = f"Fabric: {fabric}. Net quantity: {pack}. {rng.choice(SIZES)} {rng.choice(CARE)}"
    stated = None if rng.random() < 0.02 else float(round(price / 10) * 10 - 1)
    return {"title": " ".join(words), "description": text, "price": stated}
