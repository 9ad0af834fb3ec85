// Languages, named and written as their readers do.

const names = new Intl.DisplayNames(navigator.languages, { type: "language" });

/** A language's name in the user's own language. */
export function nameOf(tag) {
  return names.of(tag) ?? tag;
}

/** The tags, by name. */
export function sorted(tags) {
  const order = new Intl.Collator(navigator.languages).compare;
  return [...tags].sort((one, other) => order(nameOf(one), nameOf(other)));
}

const FROM_THE_RIGHT = new Set(["Arab", "Hebr", "Syrc", "Thaa", "Nkoo", "Adlm", "Rohg"]);

/** rtl or ltr, by the script that a language is usually written in; auto for an unknown one. */
export function directionOf(tag) {
  if (!tag) return "auto";
  return FROM_THE_RIGHT.has(new Intl.Locale(tag).maximize().script) ? "rtl" : "ltr";
}

/** The first of the user's languages that the model has, apart from one. */
export function preferred(tags, apartFrom) {
  const left = tags.filter((tag) => tag !== apartFrom);
  const wanted = navigator.languages.map((tag) => new Intl.Locale(tag).language);
  return wanted.find((tag) => left.includes(tag)) ?? left[0] ?? tags[0];
}
