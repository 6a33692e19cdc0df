package library

import "strings"

// stem reduces a folded word to its stem as FTS5's tokenizer "porter" does, so that what the index matched can be found
// again in the text (https://tartarus.org/martin/PorterStemmer/def.txt; a test compares the two). Words of less than three
// or more than 63 bytes are left alone, as there.
func stem(word string) string {
	if len(word) <= 2 || len(word) >= 64 {
		return word
	}
	b := []byte(word)
	b = step1a(b)
	b = step1b(b)
	if n := len(b); b[n-1] == 'y' && hasVowel(b[:n-1]) {
		b[n-1] = 'i'
	}
	b = suffix(b, step2, 0)
	b = suffix(b, step3, 0)
	b = step4(b)
	return string(step5(b))
}

// A rule replaces a suffix where what stands before it is long enough.
type rule struct{ old, new string }

var step2 = []rule{
	{"ational", "ate"}, {"tional", "tion"}, {"enci", "ence"}, {"anci", "ance"}, {"izer", "ize"}, {"logi", "log"}, {"bli", "ble"},
	{"alli", "al"}, {"entli", "ent"}, {"eli", "e"}, {"ousli", "ous"}, {"ization", "ize"}, {"ation", "ate"}, {"ator", "ate"},
	{"alism", "al"}, {"iveness", "ive"}, {"fulness", "ful"}, {"ousness", "ous"}, {"aliti", "al"}, {"iviti", "ive"}, {"biliti", "ble"},
}

var step3 = []rule{{"icate", "ic"}, {"ative", ""}, {"alize", "al"}, {"iciti", "ic"}, {"ical", "ic"}, {"ful", ""}, {"ness", ""}}

var step4Suffixes = []string{
	"al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate", "iti", "ous", "ive", "ize",
}

// suffix applies the rule with the longest matching suffix if the measure before it is above m.
func suffix(b []byte, rules []rule, m int) []byte {
	best := -1
	for i, r := range rules {
		if strings.HasSuffix(string(b), r.old) && (best < 0 || len(r.old) > len(rules[best].old)) {
			best = i
		}
	}
	if best < 0 {
		return b
	}
	r := rules[best]
	if base := b[:len(b)-len(r.old)]; measure(base) > m {
		return append(base, r.new...)
	}
	return b
}

func step1a(b []byte) []byte {
	s := string(b)
	switch {
	case strings.HasSuffix(s, "sses"), strings.HasSuffix(s, "ies"):
		return b[:len(b)-2]
	case strings.HasSuffix(s, "ss"):
		return b
	case strings.HasSuffix(s, "s"):
		return b[:len(b)-1]
	}
	return b
}

func step1b(b []byte) []byte {
	s := string(b)
	switch {
	case strings.HasSuffix(s, "eed"):
		if measure(b[:len(b)-3]) > 0 {
			return b[:len(b)-1]
		}
		return b
	case strings.HasSuffix(s, "ed") && hasVowel(b[:len(b)-2]):
		b = b[:len(b)-2]
	case strings.HasSuffix(s, "ing") && hasVowel(b[:len(b)-3]):
		b = b[:len(b)-3]
	default:
		return b
	}
	s = string(b)
	switch {
	case strings.HasSuffix(s, "at"), strings.HasSuffix(s, "bl"), strings.HasSuffix(s, "iz"):
		return append(b, 'e')
	case doubled(b) && !strings.ContainsRune("lsz", rune(b[len(b)-1])):
		return b[:len(b)-1]
	case measure(b) == 1 && cvc(b):
		return append(b, 'e')
	}
	return b
}

func step4(b []byte) []byte {
	longest := ""
	for _, s := range step4Suffixes {
		if len(s) > len(longest) && strings.HasSuffix(string(b), s) {
			longest = s
		}
	}
	base := b[:len(b)-len(longest)]
	if longest == "" || measure(base) <= 1 {
		return b
	}
	if longest == "ion" && !strings.ContainsRune("st", rune(base[len(base)-1])) {
		return b
	}
	return base
}

func step5(b []byte) []byte {
	if n := len(b) - 1; n > 0 && b[n] == 'e' {
		if m := measure(b[:n]); m > 1 || m == 1 && !cvc(b[:n]) {
			b = b[:n]
		}
	}
	if n := len(b) - 1; n > 0 && b[n] == 'l' && b[n-1] == 'l' && measure(b[:n]) > 1 {
		b = b[:n]
	}
	return b
}

// vowel says whether b[i] is a vowel: y is one after a consonant.
func vowel(b []byte, i int) bool {
	switch b[i] {
	case 'a', 'e', 'i', 'o', 'u':
		return true
	case 'y':
		return i > 0 && !vowel(b, i-1)
	}
	return false
}

func hasVowel(b []byte) bool {
	for i := range b {
		if vowel(b, i) {
			return true
		}
	}
	return false
}

// measure counts the changes from vowels to consonants.
func measure(b []byte) (m int) {
	before := false
	for i := range b {
		v := vowel(b, i)
		if before && !v {
			m++
		}
		before = v
	}
	return m
}

func doubled(b []byte) bool {
	n := len(b)
	return n >= 2 && b[n-1] == b[n-2] && !vowel(b, n-1)
}

// cvc says that b ends in consonant, vowel, consonant, the last of which is not w, x or y.
func cvc(b []byte) bool {
	n := len(b)
	return n >= 3 && !vowel(b, n-1) && vowel(b, n-2) && !vowel(b, n-3) && !strings.ContainsRune("wxy", rune(b[n-1]))
}
