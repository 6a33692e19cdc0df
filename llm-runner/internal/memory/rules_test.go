package memory

import (
	"strings"
	"testing"
)

func TestSecrets(t *testing.T) {
	for text, value := range map[string]string{
		"my password is Sommer2024!":                           "Sommer2024!",
		"Passwort: rosebud":                                    "rosebud",
		"Mein WLAN-Passwort lautet rosebud":                    "rosebud",
		"rosebud is my password":                               "rosebud",
		"use password hunter2 there":                           "hunter2",
		"my passphrase is correct horse battery staple":        "battery staple",
		"the door code is 4711":                                "4711",
		"Türcode 4711":                                         "4711",
		"my PIN is 0815":                                       "0815",
		"die TAN 123 456 kam per SMS":                          "123 456",
		"Dein Bestätigungscode lautet 482913":                  "482913",
		"sk-ant-api03-abcdefghijklmnop":                        "sk-ant-api03-abcdefghijklmnop",
		"gsk_abcdefgh12345678":                                 "gsk_abcdefgh12345678",
		"ghp_16C7e42F292c6912E7710c838347Ae178B4a":             "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
		"AKIAIOSFODNN7EXAMPLE":                                 "AKIAIOSFODNN7EXAMPLE",
		"AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY":              "AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
		"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc":         "eyJzdWIiOiIxMjM0In0",
		"-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n":           "abc",
		"postgres://me:rosebud@db/x":                           "rosebud",
		"Authorization: Bearer abc.def-ghi":                    "abc.def-ghi",
		"4111-1111-1111-1111":                                  "4111-1111-1111-1111",
		"DE89 3704 0044 0532 0130 00":                          "DE89 3704 0044 0532 0130 00",
		"gb82west12345698765432":                               "gb82west12345698765432",
		"d41d8cd98f00b204e9800998ecf8427e":                     "d41d8cd98f00b204e9800998ecf8427e",
		"wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY":               "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
		"it is Tr0ub4dor&3xyz, really":                         "Tr0ub4dor&3xyz",
		"https://example.org/?t=x8Kd02mfLq91ZzPoT5vB7rYw":      "x8Kd02mfLq91ZzPoT5vB7rYw",
		"My CVV is 123":                                        "123",
		"Meine Steuer-ID ist 12 345 678 901":                   "12 345 678 901",
		"Mein WLAN-Passwort:\nsommerwiese":                     "sommerwiese",
		"Mein WLAN-Passwort:\n\n  sommerwiese\n\nDanke":        "sommerwiese",
		"WLAN-Passwort\nsommerwiese":                           "sommerwiese",
		"**Password**:\r\nsommerwiese":                         "sommerwiese",
		"My password?\nI use hunter2 for everything.":          "hunter2",
		"My password? Rosebud.":                                "Rosebud",
		"Das Kennwort lautet\nsommerwiese":                     "sommerwiese",
		"my passwords:\n- mail: rosebud\n- bank: sommerwiese":  "sommerwiese",
		"recovery phrase:\n1. Ribbon\n2. Lamp\n3. Otter":       "Otter",
		"sommerwiese\nis my wifi password":                     "sommerwiese",
		"Sommerwiese. Das ist mein WLAN-Passwort.":             "Sommerwiese",
		"sommerwiese\nThat’s our door code":                    "sommerwiese",
		"the recovery phrase is ribbon lamp otter tree window": "otter",
	} {
		hidden := false
		for _, s := range secrets(text) {
			hidden = hidden || strings.Contains(text[s.from:s.to], value)
		}
		if !hidden {
			t.Errorf("%q: found %v", text, secrets(text))
		}
		if strings.Contains(read(text).asked, value) {
			t.Errorf("%q: a model would be asked %q", text, read(text).asked)
		}
	}
	for _, text := range []string{
		"I live in Berlin since 2019", "My zip code is 53111", "Donaudampfschifffahrtsgesellschaftskapitän", "I was born on 12 May 1984 at 14:30", "I use a password manager",
		"My phone number is +49 228 1234567", "jonas.weber1984@example.org is my mail", "https://example.org/a/long/path/to-something-2024.html", "I work at Müller & Söhne",
		"I run PostgreSQL 17.2 and go1.25.3", "The user weighs 78.5 kg", "I drive 23,000 km a year", "I read the source code of SQLite", "E-Bike-Akku mit 625Wh", "GPT-4o and qwen2.5:14b-instruct",
		"192.168.178.20", "I code in Go", "my_project_name/with/slashes_v2",
		"I forgot my password. I live in Bonn.", "My zip code?\nI live in Bonn, 53111.", "That is my brother. I live in Bonn.", "I like tea. That is the source code I meant.", "Ich habe keine Geheimnisse vor dir",
	} {
		if s := secrets(text); len(s) > 0 {
			t.Errorf("%q is no secret: %v", text, s)
		}
	}
}

func TestOthersAreOthers(t *testing.T) {
	for clause, want := range map[string]bool{
		"My brother lives in Rome": true, "I think my brother lives in Rome": true, "my dear old mother has a cat": true, "She lives in Rome": true, "Meine Tochter heißt Lea": true,
		"Ich glaube, mein Chef wohnt in Ulm": true, "My boss, I believe": true, "Er wohnt in Ulm": true,
		"I live with my brother": false, "My wife and I live in Bonn": false, "My name is Jonas": false, "Mein Auto ist rot": false, "Ich wohne bei meiner Mutter": false,
		"My brother visits me": false, "I have a sister": false, "My favourite colour is blue": false,
	} {
		if got := ofOthers(clause); got != want {
			t.Errorf("%q: %v", clause, got)
		}
	}
}

// TestWhatIsPastedIsNotThePersons has texts of others pasted without any mark.
func TestWhatIsPastedIsNotThePersons(t *testing.T) {
	for _, text := range []string{
		"Summarise this mail: Hi, I live in Oslo and I love skiing.",
		"Please summarize the following email for me:\n\nHi Tom,\nI live in Oslo.\nAnna",
		"Translate to German: I live in Oslo.",
		"translate this into French\nI live in Oslo",
		"Can you proofread this paragraph?\nI live in Oslo and work there.",
		"Fass diese Mail zusammen: Ich wohne in Oslo.",
		"Übersetze ins Englische: Ich wohne in Oslo.",
		"Korrigiere bitte den folgenden Text:\nIch wohne in Oslo.",
		"Fasse bitte den Text zusammen.\nIch wohne in Oslo.",
		"Ich habe diese Nachricht bekommen: Hallo, ich wohne in Oslo.",
		"I got this letter from a pen pal:\nI live in Oslo.",
		"What do you make of it?\n\nDear neighbours,\nI live in Oslo.\nYours",
		"I live in Oslo and I love skiing.\n\nCan you summarise this text?",
		"Ich wohne in Oslo.\n\nBitte übersetze das ins Englische.",
	} {
		r := read(text)
		if strings.Contains(r.asked, "Oslo") {
			t.Errorf("%q: a model would be asked %q", text, r.asked)
		}
		quote := "I live in Oslo"
		if i := strings.Index(strings.ToLower(text), "ich wohne in oslo"); i >= 0 {
			quote = text[i : i+len("ich wohne in oslo")]
		}
		c := candidate{Fact: "The user lives in Oslo", Quote: quote, About: aboutUser, Lasting: true, Confidence: 1}
		if got := r.judge(&c); got != dropWords {
			t.Errorf("%q: %q", text, got)
		}
	}
	for _, text := range []string{
		"Please remember this: I live in Oslo.", "Hi, I live in Oslo.", "Hello!\nI live in Oslo.", "I live in Oslo. Can you summarise this mail?", "My answer: I live in Oslo.",
		"I live in Oslo. How do I translate a web page?", "Fix my plan, please. I live in Oslo.", "A note about me: I live in Oslo.", "Explain taxes to me. I live in Oslo.",
	} {
		if r := read(text); !strings.Contains(r.asked, "Oslo") {
			t.Errorf("%q is the person's own: a model would be asked %q", text, r.asked)
		}
	}
}

func TestTopicsOfOneThingMeet(t *testing.T) {
	for _, x := range []struct {
		a, b string
		meet bool
	}{
		{"Where do I live?", "The user lives in Bonn", true},
		{"I am living alone", "The user lives in Bonn", true},
		{"Wo wohne ich?", "Der Nutzer wohnt in Ulm", true},
		{"Was darf ich bei meiner Allergie essen?", "Der Nutzer ist allergisch gegen Nüsse", true},
		{"Which tram do I take?", "The user takes coffee without sugar", false},
		{"How does a heat pump work?", "The user has two cats", false},
		{"Wie spät ist es?", "Der Nutzer hat einen Hund", false},
	} {
		if got := likeness(topics(x.a), topics(x.b)) > 0; got != x.meet {
			t.Errorf("%q and %q: %v, %v and %v", x.a, x.b, got, topics(x.a), topics(x.b))
		}
	}
}

func TestGrounded(t *testing.T) {
	for _, x := range []struct {
		fact, message string
		want          bool
	}{
		{"The user lives in Bonn", "I moved to Bonn", true},
		{"The user lives in Bonn", "I moved to Cologne", false},
		{"The user is 41", "I am 41 years old", true},
		{"The user is 42", "I am 41 years old", false},
		{"Der Nutzer hat eine Allergie gegen Nüsse", "ich bin allergisch gegen Nüsse", true},
		{"Der Nutzer ist Arzt", "ich bin Ärztin", false},
		{"Die Muttersprache des Nutzers ist Ungarisch", "Meine Muttersprache ist Ungarisch", true},
		{"The user likes tea", "tea is what I like", true},
	} {
		if got := grounded(x.fact, x.message); got != x.want {
			t.Errorf("%q from %q: %v", x.fact, x.message, got)
		}
	}
}

func TestAnswersThatDoNotFit(t *testing.T) {
	for answer, want := range map[string][2]int{ // kept, dropped; -1: all of it
		`{"facts":[]}`: {0, 0},
		`{"facts":[{"fact":"a","quote":"b","about":"user","lasting":true,"corrects":false,"confidence":1}]}`:       {1, 0},
		`{"facts":[{"fact":"a","quote":"b","about":"user","lasting":true,"corrects":false,"confidence":1,"x":1}]}`: {0, 1},
		`{"facts":[{"fact":"a","quote":"b","about":"you","lasting":true,"corrects":false,"confidence":1}, 7]}`:     {0, 2},
		`{"facts":[{"fact":"a","quote":"b","about":"user","lasting":true,"corrects":false,"confidence":7}]}`:       {0, 1},
		`{"facts":[{"fact":"a","quote":"b","about":"user","lasting":"yes","corrects":false,"confidence":1}]}`:      {0, 1},
		"```json\n{\"facts\":[]}\n```": {0, 0},
		`{"facts":[]} and more`:        {-1, 0}, `{}`: {-1, 0}, `[]`: {-1, 0}, ``: {-1, 0}, `{"facts":null}`: {-1, 0}, `{"facts":[],"extra":1}`: {-1, 0},
	} {
		all, dropped, err := parse(answer)
		if err != nil && want[0] != -1 || err == nil && (len(all) != want[0] || dropped != want[1]) {
			t.Errorf("%s: %d kept, %d dropped, %v", answer, len(all), dropped, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("I live in Bonn. \"Not I\" 4111 1111 1111 1111", `{"facts":[{"fact":"The user lives in Bonn","quote":"I live in Bonn","about":"user","lasting":true,"corrects":false,"confidence":1}]}`)
	f.Add("```\nx", "{}")
	f.Fuzz(func(t *testing.T, text, answer string) {
		r := read(text)
		all, _, err := parse(answer)
		if err != nil {
			return
		}
		for _, c := range all {
			if r.judge(&c) == "" && text[c.Start:c.Start+len(c.Quote)] != c.Quote {
				t.Errorf("%q does not stand at %d of %q", c.Quote, c.Start, text)
			}
		}
	})
}

func TestJudge(t *testing.T) {
	const message = "My password is rosebud. I like roses. \"I like tulips a lot\", she said. My aunt likes lilies and I like ferns."
	for _, x := range []struct {
		fact, quote string
		want        drop
	}{
		{"The user likes roses", "I like roses", ""},
		{"The user likes roses", "rosebud", dropSecret}, // a part of a secret, and nothing that looks like one by itself
		{"The user likes rosebud", "rosebud. I like roses", dropSecret},
		{"The user has card 4111 1111 1111 1111", "I like roses", dropSecret},
		{"The user likes tulips", "I like tulips", dropWords},
		{"The user likes lilies", "My aunt likes lilies", dropOthers},
		{"The user likes lilies", "likes lilies", dropOthers},
		{"The user likes ferns", "I like ferns", ""},
		{"The user likes Roses of Picardy", "I like roses", dropGround},
		{"The user likes roses", "I love roses", dropQuote},
		{"The user likes roses", "I", dropQuote},
		{"", "I like roses", dropText},
	} {
		c := candidate{Fact: x.fact, Quote: x.quote, About: aboutUser, Lasting: true, Confidence: 1}
		r := read(message)
		if got := r.judge(&c); got != x.want {
			t.Errorf("%q from %q: %q, should be %q", x.fact, x.quote, got, x.want)
		}
	}
}
