package precheck

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/seal"
	"home.arpa/lab/homelab-iac/internal/site"
)

// Names in the kit.
const (
	kitExport = "infisical.json" // what infisical export --format=json printed
	kitKeys   = "infisical.env"  // ENCRYPTION_KEY and AUTH_SECRET of the server
	kitState  = "state.key"      // what Terraform's state is sealed with
)

// secretsKept compares the kit's export with what Infisical has now, and wants the two keys without which a restored Infisical cannot read
// its own database. No name and no value is told.
func secretsKept(ctx context.Context, l *look) (seen, error) {
	const cure = "infisical export --format=json > " + kitExport + ", into the kit"
	if l.Kit == "" {
		return seen{}, fault("mount the kit, or name its folder with --kit", "the break-glass kit is not here")
	}
	keys, err := site.Key{File: filepath.Join(l.Kit, kitKeys)}.Environ()
	if err != nil {
		return seen{}, fault("copy ENCRYPTION_KEY and AUTH_SECRET from Infisical's environment into "+kitKeys+" in the kit", "Infisical's own keys are not in the kit: %v", err)
	}
	for _, name := range []string{"ENCRYPTION_KEY", "AUTH_SECRET"} {
		if !slices.ContainsFunc(keys, func(kv string) bool { return strings.HasPrefix(kv, name+"=") && len(kv) > len(name)+16 }) {
			return seen{}, fault("copy it from Infisical's environment into "+kitKeys+" in the kit", "the kit has no %s: a restored Infisical could not read its database", name)
		}
	}
	file := filepath.Join(l.Kit, kitExport)
	text, err := os.ReadFile(file)
	if err != nil {
		return seen{}, fault(cure, "the export is not in the kit: %v", err)
	}
	var export []struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	}
	if err := json.Unmarshal(text, &export); err != nil || len(export) == 0 {
		return seen{}, fault(cure, "the export in the kit cannot be read, or is empty")
	}
	st, err := os.Stat(file)
	if err != nil {
		return seen{}, fault(cure, "%v", err)
	}
	found := seen{at: st.ModTime()}
	if l.Secrets == nil {
		return found, fault("add precheck.infisical to the configuration: an identity that may read", "Infisical cannot be asked whether the export is whole")
	}
	now, err := l.Secrets(ctx)
	if err != nil {
		return found, fault("look whether Infisical is up, and the identity counts", "%v", err)
	}
	kept := map[string]string{}
	for _, e := range export {
		kept[e.Key] = e.Value
	}
	missing, differ := 0, 0
	for name, value := range now {
		if was, ok := kept[name]; !ok {
			missing++
		} else if was != value {
			differ++
		}
	}
	if missing+differ > 0 {
		return found, fault(cure, "%d secrets of Infisical are not in the kit's export, and %d are there with an older value", missing, differ)
	}
	found.text = fmt.Sprintf("%d secrets in the export, equal to Infisical's; its own keys are there", len(now))
	return found, nil
}

// StateService is the service of the catalog that keeps Terraform's state.
const StateService = "terraform-state"

// stateOf is as much of a state as matters here (format version 4).
type stateOf struct {
	Version int    `json:"version"`
	Serial  int64  `json:"serial"`
	Lineage string `json:"lineage"`
}

// stateKept opens the copy of Terraform's state in the backup with the kit's key, and compares it with GitLab's.
func stateKept(ctx context.Context, l *look) (seen, error) {
	i := slices.IndexFunc(l.Catalog, func(s catalog.Service) bool { return s.Name == StateService })
	if i < 0 || len(l.Catalog[i].Backup.Dumps) == 0 {
		return seen{}, fault("keep the folder services/"+StateService, "the catalog has no service %s", StateService)
	}
	if l.Kit == "" {
		return seen{}, fault("mount the kit, or name its folder with --kit", "the break-glass kit is not here")
	}
	s := l.Catalog[i]
	key, err := os.ReadFile(filepath.Join(l.Kit, kitState))
	if err != nil {
		return seen{}, fault("copy the key that terraform.key names into "+kitState+" in the kit", "the key of the state is not in the kit: %v", err)
	}
	repo, snapshot, err := l.from(s, l.Repo)
	if err != nil {
		return seen{}, err
	}
	found := seen{at: snapshot.Time}
	again := "homelab backup run fast on " + s.Host
	var sealed bytes.Buffer
	if err := repo.Dump(ctx, snapshot.ID, path.Join(l.Dumps, s.Name, s.Backup.Dumps[0].Name), &sealed); err != nil {
		return found, fault(again, "the copy cannot be fetched: %v", err)
	}
	plain, err := seal.Open(string(key), sealed.Bytes())
	if err != nil {
		return found, fault("put the right key into the kit, and run "+again, "the copy cannot be opened with the kit's key: %v", err)
	}
	kept, err := readState(plain)
	if err != nil {
		return found, fault(again, "the copy is no state: %v", err)
	}
	if l.State == nil {
		return found, fault("add terraform.state to the configuration", "GitLab cannot be asked whether the copy is the newest")
	}
	text, err := l.State(ctx)
	if err != nil {
		return found, fault("look whether GitLab is up, and the token counts", "%v", err)
	}
	now, err := readState(text)
	switch {
	case err != nil:
		return found, fault("look at the state in GitLab", "GitLab's state cannot be read: %v", err)
	case now.Lineage != kept.Lineage:
		return found, fault(again, "the copy is of another state than GitLab has")
	case now.Serial != kept.Serial:
		return found, fault(again, "the copy has serial %d, and GitLab has %d: something was applied since", kept.Serial, now.Serial)
	}
	found.text = fmt.Sprintf("serial %d, opened with the kit's key, and the same as GitLab's", kept.Serial)
	return found, nil
}

func readState(text []byte) (s stateOf, err error) {
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("it is not JSON")
	}
	if s.Version != 4 || s.Lineage == "" {
		return s, fmt.Errorf("its version is %d, and 4 is known; or it has no lineage", s.Version)
	}
	return s, nil
}

// wayTime bounds one way in.
const wayTime = time.Minute

// waysIn tries the ways into the machine: who wipes it by the only one stands outside.
func waysIn(ctx context.Context, l *look) (seen, error) {
	const cure = "name two ways under precheck.ways: SSH over the tailnet, and the provider's console or rescue system (docs/homelab/precheck.md)"
	if len(l.Ways) < 2 {
		return seen{}, fault(cure, "%d ways in are named, and two are needed", len(l.Ways))
	}
	var works, not []string
	for _, w := range l.Ways {
		ctx, cancel := context.WithTimeout(ctx, wayTime)
		cmd := exec.CommandContext(ctx, w.Run[0], w.Run[1:]...)
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = 5 * time.Second
		if err := cmd.Run(); err != nil {
			not = append(not, fmt.Sprintf("%s (%v)", w.What, err))
		} else {
			works = append(works, w.What)
		}
		cancel()
	}
	if len(works) < 2 {
		return seen{}, fault("mend what does not work, or name another way", "of %d ways in only %d works: not %s", len(l.Ways), len(works), strings.Join(not, ", "))
	}
	return seen{text: "these work: " + strings.Join(works, ", ")}, nil
}

// alertReaches wants every state green, Kuma to take a push, and Discord to keep a message.
func alertReaches(ctx context.Context, l *look) (seen, error) {
	troubles := map[string]string{}
	for _, s := range l.States {
		if s.Trouble != "" {
			troubles[s.Monitor] = s.Trouble
		}
	}
	if len(troubles) > 0 {
		first := slices.Sorted(maps.Keys(troubles))[0]
		return seen{}, fault("homelab watch lists them; mend them first", "%d of %d monitors are not green; %s: %s", len(troubles), len(l.States), first, troubles[first])
	}
	if len(l.States) == 0 {
		return seen{}, fault("homelab watch tells what is missing", "nothing is watched on this machine")
	}
	if l.Push == nil {
		return seen{}, fault("add kuma to the configuration", "this machine pushes to no Uptime Kuma")
	}
	if err := l.Push(ctx); err != nil {
		return seen{}, fault("look at Uptime Kuma", "it does not take pushes: %v", err)
	}
	if l.Tell == nil {
		return seen{}, fault("add discord to the configuration", "nobody is told of anything: there is no webhook")
	}
	if err := l.Tell(ctx, "Test alert from precheck on "+l.Host+": nothing is wrong. Somebody is about to wipe this machine."); err != nil {
		return seen{}, fault("copy the webhook's URL again", "the test alert was not taken: %v", err)
	}
	return seen{text: fmt.Sprintf("%d monitors are green, Uptime Kuma takes pushes, and Discord kept a test alert", len(l.States))}, nil
}
