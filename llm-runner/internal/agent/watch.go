package agent

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// staleAfter is how old a tier's last whole snapshot may be, and that of any other: a daily tier may miss one day, a weekly one a day.
var staleAfter = map[string]time.Duration{"fast": 50 * time.Hour, "slow": 8*24*time.Hour + 2*time.Hour}

const staleOther = 8 * 24 * time.Hour

// Metrics reads what homelab writes for the node exporter's textfile collector, and returns what is wrong and how many things are well. Lines
// that it does not know are nothing.
func Metrics(text string, now time.Time) (wrong []string, ok int) {
	type thing struct {
		good, seen bool
		last       time.Time
		drill      bool
	}
	all := map[string]*thing{}
	for line := range strings.Lines(text) {
		name, labels, value, fine := sample(line)
		if !fine {
			continue
		}
		kind, field, known := strings.Cut(strings.TrimPrefix(name, "homelab_"), "_")
		if !known || !strings.HasPrefix(name, "homelab_") || kind != "backup" && kind != "drill" {
			continue
		}
		key := labels["service"]
		if kind == "drill" {
			key = labels["machine"]
		}
		if tier := labels["tier"]; tier != "" && key != "" {
			key += " (" + tier + ")"
		}
		if key == "" {
			continue
		}
		key = kind + " " + key
		if all[key] == nil {
			all[key] = &thing{drill: kind == "drill"}
		}
		switch field {
		case "good":
			all[key].good, all[key].seen = value == 1, true
		case "last_good_timestamp_seconds", "timestamp_seconds": // of backups, of drills
			all[key].last = time.Unix(int64(value), 0)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		x := all[key]
		_, what, _ := strings.Cut(key, " ")
		bound := staleOther
		for tier, d := range staleAfter {
			if strings.HasSuffix(key, "("+tier+")") {
				bound = d
			}
		}
		switch {
		case !x.seen && x.last.IsZero():
		case x.seen && !x.good && x.drill:
			wrong = append(wrong, what+": its data were not the same in the last drill of a restore")
		case x.drill && !x.last.IsZero() && now.Sub(x.last) > staleOther:
			wrong = append(wrong, fmt.Sprintf("%s: no drill of a restore since %s", what, x.last.In(now.Location()).Format("Mon 2 Jan 15:04")))
		case x.seen && !x.good && x.last.IsZero():
			wrong = append(wrong, what+": the last run made no whole snapshot, and none is known")
		case x.seen && !x.good:
			wrong = append(wrong, fmt.Sprintf("%s: the last run made no whole snapshot; the last one is of %s", what, x.last.In(now.Location()).Format("Mon 2 Jan 15:04")))
		case !x.drill && !x.last.IsZero() && now.Sub(x.last) > bound:
			wrong = append(wrong, fmt.Sprintf("%s: no whole snapshot since %s", what, x.last.In(now.Location()).Format("Mon 2 Jan 15:04")))
		default:
			ok++
		}
	}
	return wrong, ok
}

// sample reads one line of Prometheus' text format.
func sample(line string) (name string, labels map[string]string, value float64, ok bool) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return "", nil, 0, false
	}
	labels = map[string]string{}
	name, rest := line, ""
	if i := strings.IndexByte(line, '{'); i > 0 {
		end := strings.LastIndexByte(line, '}')
		if end < i {
			return "", nil, 0, false
		}
		name, rest = line[:i], line[end+1:]
		for part := line[i+1 : end]; part != ""; {
			key, after, found := strings.Cut(part, "=")
			quoted, err := strconv.QuotedPrefix(after)
			if !found || err != nil {
				return "", nil, 0, false
			}
			labels[strings.Trim(key, " ,")], err = strconv.Unquote(quoted)
			if err != nil {
				return "", nil, 0, false
			}
			part = after[len(quoted):]
		}
	} else if i := strings.IndexByte(line, ' '); i > 0 {
		name, rest = line[:i], line[i:]
	}
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return "", nil, 0, false
	}
	value, err := strconv.ParseFloat(fields[0], 64)
	return name, labels, value, err == nil
}

// Kuma reads a public status page of Uptime Kuma: what /api/status-page/SLUG and /api/status-page/heartbeat/SLUG answer. It returns which
// monitors are down, and how many are up.
func Kuma(page, beats []byte) (wrong []string, ok int, err error) {
	var p struct {
		PublicGroupList []struct {
			MonitorList []struct {
				ID   int64
				Name string
			}
		}
	}
	var b struct {
		HeartbeatList map[string][]struct {
			Status int
			Time   string
			Msg    string
		}
	}
	if err := json.Unmarshal(page, &p); err != nil {
		return nil, 0, fmt.Errorf("read the status page: %w", err)
	}
	if err := json.Unmarshal(beats, &b); err != nil {
		return nil, 0, fmt.Errorf("read the status page's heartbeats: %w", err)
	}
	for _, g := range p.PublicGroupList {
		for _, m := range g.MonitorList {
			all := b.HeartbeatList[strconv.FormatInt(m.ID, 10)]
			if len(all) == 0 {
				continue
			}
			switch last := all[len(all)-1]; last.Status { // 0 down, 1 up, 2 pending, 3 maintenance
			case 1, 3:
				ok++
			case 0:
				text := m.Name + " is down"
				if msg := oneLine(last.Msg); msg != "" {
					text += ": " + msg
				}
				wrong = append(wrong, text)
			}
		}
	}
	return wrong, ok, nil
}
