package library

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// A language decides how words are stemmed. German and English notes live side by side: each note is stemmed by its own, and
// the words of a question by both.
type language uint8

const (
	english language = iota // and whatever is neither
	german
	languages
)

// stem returns the stem of a folded word. German stems end in a mark, so that a word stemmed as German is found in German notes only:
// the German stem of "printer" is the English one of "print".
func (l language) stem(word string) string {
	slot := &stemmed[l][maphash.String(stemSeed, word)%uint64(len(stemmed[l]))]
	if known := slot.Load(); known != nil && known.word == word {
		return known.stem
	}
	known := &wordStem{word: strings.Clone(word)}
	known.stem = stem(known.word)
	if l == german && word != "" {
		known.stem = stemGerman(known.word) + germanMark
	}
	slot.Store(known)
	return known.stem
}

// stemmed remembers the stems of words that were met last: stemming is most of the work of taking a text apart.
var (
	stemmed  [languages][1 << 13]atomic.Pointer[wordStem]
	stemSeed = maphash.MakeSeed()
)

type wordStem struct{ word, stem string }

const germanMark = "_"

// languageSample bounds how many bytes of a text are looked at to tell its language.
const languageSample = 8 << 10

// languageOf tells a text's language by its stop words: German where it has more of the German ones.
func languageOf(text string) language {
	if len(text) > languageSample {
		text = text[:languageSample]
	}
	var count [languages]int
	for _, t := range wordsOf(text) {
		e, d := englishStops[t.word], germanStops[t.word]
		switch {
		case e && !d:
			count[english]++
		case d && !e:
			count[german]++
		}
	}
	if count[german] > count[english] {
		return german
	}
	return english
}

// stopWords are words that say nothing of what is sought, folded; also the letters that remain of "what's" and "don't", and
// the verbs with which people phrase questions. They are dropped from questions only: the index holds every word.
var (
	englishStops = set(`
		a about again all also am an and any anyone are as at be because been being but by can cannot could d did didn do does doesn doing don
		done each else ever every for from get gets give go goes got had happen happened happening happens has have having he her here hers
		him his how i if in into is isn it its itself just know let like ll m make may me mean means might mine more most much must my
		no nor not of off on once one only or our ours out please re s shall she should so some such t tell than that the their them then
		there these they thing things this those to too us ve very want was wasn we were what when where whether which while who whom whose
		why will with without won would yes you your yours explain describe show example examples something anything use using`)
	germanStops = set(`
		aber alle allem allen aller alles als also am an ander andere auch auf aus bei beim bin bis bist bitte da damit dann das dass dein
		deine dem den denn der des deshalb die dies diese diesem diesen dieser dieses doch dort du durch ein eine einem einen einer eines
		er es etwas euch euer fur gegen gab geht gibt habe haben hast hat hatte hier hin ich ihm ihn ihr ihre im immer in ins ist ja jede
		jedem jeden jeder jedes kann kannst kein keine konnen machen mache macht man mein meine meinem meinen meiner mich mir mit muss nach
		nicht nichts noch nun nur ob oder ohne passiert sag sage sehr sein seine sich sie sind so soll sollte sondern uber um und uns unser
		unsere unter vom von vor war waren warum was welche welchem welchen welcher welches wenn wer werden wie wieder wird wirst wo
		wohin woher wurde wurden zu zum zur zwischen beispiel beispiele`)
)

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

func isStop(word string) bool { return englishStops[word] || germanStops[word] }
