package restore

import (
	"fmt"
	"strings"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/postgres"
	"home.arpa/lab/homelab-iac/internal/restic"
)

// Guide is docs/restore.md: the plans of all services, printed. It is generated; a test compares it with the catalog.
func Guide(all []catalog.Service) string {
	var b strings.Builder
	b.WriteString(guideHead)
	b.WriteString("| Service | Machine | What is kept | Promised within | Tags |\n|---|---|---|---|---|\n")
	for _, s := range all {
		if s.Nothing == "" {
			fmt.Fprintf(&b, "| [%s](#restore-%s) | %s | %s | %s | %s |\n", s.Name, s.Name, s.Host, kept(s), duration(s), strings.Join(append([]string{s.Name}, tagsBeside(s)...), ", "))
		}
	}
	b.WriteString("\nNothing has to be restored of these:\n\n")
	for _, s := range all {
		if s.Nothing != "" {
			fmt.Fprintf(&b, "* **%s** (%s): %s\n", s.Name, s.Host, s.Nothing)
		}
	}
	for _, s := range all {
		if s.Nothing == "" {
			section(&b, s)
		}
	}
	b.WriteString(guideTail)
	return b.String()
}

func kept(s catalog.Service) string {
	var out []string
	for _, p := range s.Backup.Paths {
		out = append(out, "`"+p.Path+"`")
	}
	for _, d := range s.Backup.Dumps {
		out = append(out, d.Name)
	}
	return strings.Join(out, ", ")
}

func duration(s catalog.Service) string {
	text := strings.TrimSuffix(s.Restore.RTO.String(), "0s")
	if rest, ok := strings.CutSuffix(text, "h0m"); ok {
		return rest + "h"
	}
	return text
}

func tagsBeside(s catalog.Service) (out []string) {
	for _, t := range s.Restore.Tags {
		if t != s.Name {
			out = append(out, t)
		}
	}
	if len(s.Databases()) > 0 {
		out = append(out, "dbs")
	}
	return out
}

// section prints one plan. What only the snapshot knows is a variable of the shell, or what the container was made with.
func section(b *strings.Builder, s catalog.Service) {
	tier := "fast"
	if !s.In(tier) {
		tier = "slow"
	}
	from := Source{Tier: tier, Snapshot: restic.Snapshot{ID: "$SNAPSHOT"}, Manifests: map[string]postgres.Manifest{}}
	for _, d := range s.Databases() {
		m := postgres.Manifest{Globals: postgres.File{Name: "globals.sql"}}
		for _, name := range d.Databases {
			m.Databases = append(m.Databases, postgres.Database{Name: name, Owner: d.User, Encoding: "UTF8", Collate: "en_US.utf8", CType: "en_US.utf8", File: postgres.File{Name: name + ".dump"}})
		}
		from.Manifests[d.Name] = m
	}
	p := For(s, from, Site{Dumps: "/var/lib/homelab/dumps", Compose: []string{"docker", "compose", "--file", "/opt/homelab/services/{service}/compose.yaml"}, Restic: "restic", Homelab: []string{"homelab"}, Stamp: "$STAMP"})
	fmt.Fprintf(b, "\n## Restore %s\n\n%s On `%s`; back within %s. With the program: `homelab restore run --tags %s`. By hand:\n\n```sh\n", s.Name, s.About, s.Host, duration(s), s.Name)
	fmt.Fprintf(b, "# which snapshot: the newest that is not marked partial\nrestic snapshots --no-lock --host %s --tag tier:%s,svc:%s\nSNAPSHOT=...  # its ID\nSTAMP=$(date -u +%%Y%%m%%dt%%H%%M%%Sz)\n", s.Host, tier, s.Name)
	phase := ""
	for _, step := range p.Steps {
		if step.Phase != phase {
			phase = step.Phase
			fmt.Fprintf(b, "\n# --- %s\n", phase)
		}
		fmt.Fprintf(b, "# %s\n%s\n", step.What, step.Line())
	}
	b.WriteString("```\n")
	if len(s.Databases()) > 0 {
		b.WriteString("\nA database's encoding and locale are in the dump's `manifest.json`, should they differ from the ones above.\n")
	}
	if len(p.Kept) > 0 {
		fmt.Fprintf(b, "\nWhat stood there is kept as `%s`. Remove it when you have seen that the restored one is right.\n", strings.Join(p.Kept, "`, `"))
	}
}

const guideHead = `# Restore guide

Made from the service catalog by ` + "`homelab restore guide`" + `; do not edit it. The same steps are run by ` + "`homelab restore run --tags TAGS`" + ` and proved by
` + "`homelab drill --host SSH --tags TAGS`" + `.

## What is missing? The decision tree of a restore

* **A note or a single file.** ` + "`homelab restore file /srv/vault/notes/daily/2026-01-31.md`" + ` puts it beside the place where it was; nothing is replaced.
  ` + "`--as-of 2026-01-30`" + ` takes an older one.
* **A service or its data.** ` + "`homelab restore run --tags gitea`" + `. It brings everything into staging, verifies it, asks, and only then swaps; what stood there
  is kept. Tags may be combined in any order; ` + "`dbs`" + ` means all databases and nothing else.
* **A whole machine, or the hardware.** ` + "`terraform apply`" + `, then ` + "`ansible-playbook site.yml --limit HOST`" + `, then ` + "`homelab restore run --tags all`" + ` on it. Where the
  repository is checked out, ` + "`homelab restore`" + ` runs all three, asking before each.

` + "`homelab restore`" + ` without arguments asks these questions, says how long it will take (as the last drill measured) and what it will cost, and does it. Then look: read a note, compare, open the
program. The program writes down in the vault what it did.

## What a restore needs: the break-glass kit

The addresses of the repositories, their passwords, and the keys that may only read. With these and restic alone everything below can be done on any machine:

` + "```sh" + `
export RESTIC_REPOSITORY=s3:https://HOST/BUCKET/restic RESTIC_PASSWORD_FILE=/etc/homelab/keys/fast.password
set -a; . /etc/homelab/keys/fast-restore.key; set +a
` + "```" + `

These are the files that role restic writes; in [the kit](break-glass.md#the-kit) they are called ` + "`fast.password`" + ` and ` + "`fast.env`" + `. The slow
repository has its own.

Always with ` + "`--no-lock`" + `, since this key cannot write one. Never restore on a machine that calls itself by the name of a running one while backups run there.

## What can be restored

`

const guideTail = `
## A damaged repository

When ` + "`homelab backup check fast`" + ` or a restore says that packs are missing or broken, in this order (restic's manual, "Troubleshooting"):

` + "```sh" + `
systemctl stop cron                              # no backup may run meanwhile
restic cat config                                # the password opens it
cp -r index snapshots                            # with the storage's own tools: copy index/ and snapshots/ away first
restic repair index
restic repair packs ID...                        # those that the check calls broken; it keeps a copy of each in this folder
restic check --read-data-subset=1/10
homelab backup run fast                          # what is missing and still there is saved again; this run tells of it, and
homelab backup run fast                          # the next one must be whole
restic repair snapshots --forget                 # only if check still complains: snapshots lose what is gone for good
homelab backup check fast --all
` + "```" + `

Somebody wrote over objects, or deleted them, with a stolen key: the bucket keeps the older versions. Stop the backups, take the stolen key away, and

` + "```sh" + `
homelab backup versions fast                                              # what is not what it was
homelab backup versions fast --before 2026-01-30T12:00:00Z                # and what was deleted since, and which snapshots came after
homelab backup versions fast --before 2026-01-30T12:00:00Z --put-back     # each is checked against its name; nothing is removed
homelab backup check fast
` + "```" + `

A lock is in the way: ` + "`homelab backup locks fast`" + ` shows whose it is. Never remove all locks; every run judges them by itself.
`
