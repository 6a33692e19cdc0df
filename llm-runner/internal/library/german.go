package library

import "strings"

// stemGerman reduces a folded word to its stem by Snowball's German algorithm (https://snowballstem.org/algorithms/german/stemmer.html).
// Folding has already made ä, ö, ü, ß to a, o, u, ss, and with Snowball's variant "german2" ae, oe and ue are a, o and u as well,
// so that "Grösse", "Größe" and "groesse" meet. Its first letter stays.
func stemGerman(word string) string {
	if len(word) <= 3 || len(word) >= 64 {
		return word
	}
	b := umlauts([]byte(word))
	for i := 1; i+1 < len(b); i++ { // between vowels u and y are consonants
		if (b[i] == 'u' || b[i] == 'y') && germanVowel(b[i-1]) && germanVowel(b[i+1]) {
			b[i] -= 'a' - 'A'
		}
	}
	r1, r2 := regions(b)
	b = germanEnds(b, r1)
	b = germanSt(b, r1)
	b = germanSuffix(b, r1, r2)
	return strings.ToLower(string(b))
}

// umlauts turns ae, oe and ue into one letter, but not in "Mauer", "neue" and "Quelle".
func umlauts(b []byte) []byte {
	out := b[:0]
	for i := 0; i < len(b); i++ {
		out = append(out, b[i])
		if i+1 < len(b) && b[i+1] == 'e' && (b[i] == 'a' || b[i] == 'o' || b[i] == 'u' && (i == 0 || strings.IndexByte("aeq", b[i-1]) < 0)) {
			i++
		}
	}
	return out
}

// regions returns where Snowball's R1 (behind the first consonant after a vowel, but not among the first three letters) and R2
// (the same within R1) begin.
func regions(b []byte) (r1, r2 int) {
	next := func(from int) int {
		for i := from + 1; i < len(b); i++ {
			if !germanVowel(b[i]) && germanVowel(b[i-1]) {
				return i + 1
			}
		}
		return len(b)
	}
	r1 = next(0)
	r2 = next(r1)
	return max(r1, 3), r2
}

func germanVowel(c byte) bool { return strings.IndexByte("aeiouy", c) >= 0 }

// ends says that b ends in one of suffixes, which are sorted by falling length, and where that begins.
func ends(b []byte, suffixes ...string) (suffix string, at int) {
	for _, s := range suffixes {
		if len(b) > len(s) && string(b[len(b)-len(s):]) == s {
			return s, len(b) - len(s)
		}
	}
	return "", len(b)
}

func germanEnds(b []byte, r1 int) []byte {
	s, at := ends(b, "erinnen", "erin", "ern", "em", "er", "en", "es", "ln", "e", "s")
	switch {
	case s == "" || at < r1:
		return b
	case s == "s" && strings.IndexByte("bdfghklmnrt", b[at-1]) < 0:
		return b
	case s == "ln":
		at++
	case s == "e" || s == "en" || s == "es":
		if n, _ := ends(b[:at], "niss"); n != "" {
			at--
		}
	}
	return b[:at]
}

func germanSt(b []byte, r1 int) []byte {
	s, at := ends(b, "est", "en", "er", "st")
	switch {
	case s == "" || at < r1:
		return b
	case s == "st" && (at < 4 || strings.IndexByte("bdfghklmnt", b[at-1]) < 0):
		return b
	}
	return b[:at]
}

func germanSuffix(b []byte, r1, r2 int) []byte {
	s, at := ends(b, "isch", "lich", "heit", "keit", "end", "ung", "ig", "ik")
	if s == "" || at < r2 {
		return b
	}
	before := func(limit int, suffixes ...string) int {
		if t, i := ends(b[:at], suffixes...); t != "" && i >= limit {
			return i
		}
		return at
	}
	switch s {
	case "end", "ung":
		if i := before(r2, "ig"); i < at && b[i-1] != 'e' {
			at = i
		}
	case "ig", "ik", "isch":
		if b[at-1] == 'e' {
			return b
		}
	case "lich", "heit":
		at = before(r1, "er", "en")
	case "keit":
		at = before(r2, "lich", "ig")
	}
	return b[:at]
}
