package kuma

import "testing"

func TestParsePacket(t *testing.T) {
	for packet, want := range map[string]struct {
		kind byte
		id   int
		args int
	}{
		`42["info",{}]`:       {'2', 0, 2},
		`4312[{"ok":true}]`:   {'3', 12, 1},
		`43["x"]`:             {'3', 0, 1},
		`40{"sid":"a"}`:       {0, 0, 0},
		`2`:                   {0, 0, 0},
		``:                    {0, 0, 0},
		`42[`:                 {0, 0, 0},
		`4399999999999999999`: {0, 0, 0},
	} {
		kind, id, args := parsePacket(packet)
		if kind != want.kind || id != want.id || len(args) != want.args {
			t.Errorf("%q: %c %d %d", packet, kind, id, len(args))
		}
	}
}

func FuzzParsePacket(f *testing.F) {
	f.Add(`42["info",{}]`)
	f.Fuzz(func(t *testing.T, packet string) { parsePacket(packet) })
}
