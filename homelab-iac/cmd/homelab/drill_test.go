package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/site"
)

func TestWhatADrillDoesNotUnderstandIsSaid(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"drill --tags vault", "--host, or make one with --lab"},
		{"drill --sample", "--sample is for --lab"},
		{"drill --lab --host a", "say one of them"},
		{"drill --lab --config /not/there", "role restic writes it"},
		{"drill --host a --ssh= --tags vault", "--ssh is empty"},
		{"drill --host a --tags vault --playbooks /not/there", "--playbooks: stat /not/there/site.yml"},
		{"drill --host a --tags vault --images /not/there", "make it with docker save"},
		{"drill --host a --tags vault --vars /not/there", "--vars: stat /not/there"},
		{"drill --lab --sample --tags nonsense --playbooks ../../ansible", "there are all, vault, gitea, llm-runner, photos"},
		{"backup versions", "name the tier"},
		{"restore prove --config /not/there --tags vault", "role restic writes it"},
	} {
		code, stdout, stderr := homelab(t, "", strings.Fields(c.args)...)
		if code != 2 || !strings.Contains(stdout+stderr, c.want) {
			t.Errorf("homelab %s: exit %d\n%s%s", c.args, code, stdout, stderr)
		}
	}
}

func TestWhereARepositoryIsReached(t *testing.T) {
	for address, want := range map[string]string{
		"s3:https://s3.eu-central-1.amazonaws.com/b/restic": "s3.eu-central-1.amazonaws.com:443", "s3:s3.amazonaws.com/b": "s3.amazonaws.com:443",
		"s3:http://10.0.0.5:9000/b/r": "10.0.0.5:9000", "s3:http://nas/b/r": "nas:80", "rest:https://u:p@nas:8000/r": "nas:8000",
	} {
		if got, err := storage(address); err != nil || got != want {
			t.Errorf("%s: %s %v", address, got, err)
		}
	}
	for _, no := range []string{"/srv/repo", "sftp:host:/r", "s3:http://localhost:9000/b", "s3:http://127.0.0.1:9000/b", "s3:http:///b"} {
		if got, err := storage(no); err == nil {
			t.Errorf("%s: %s", no, got)
		}
	}
}

// ofDrills is a machine with all keys, and a catalog of three services on two machines.
func ofDrills(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"password": "correct horse\n", "backup": "AWS_SECRET_ACCESS_KEY=of-backup\n", "restore": "# read only\nAWS_ACCESS_KEY_ID=reader\nAWS_SECRET_ACCESS_KEY=of-restore\n", "restic": "#!/bin/sh\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	key := func(name string) site.Key { return site.Key{File: filepath.Join(dir, name)} }
	c := site.Default()
	c.Host, c.Restic = "here", filepath.Join(dir, "restic")
	c.Repositories = map[string]site.Repository{"fast": {URL: "s3:https://h/b", Password: filepath.Join(dir, "password"), Keys: map[string]site.Key{"backup": key("backup"), "maintenance": key("backup"), "restore": key("restore")}}}
	return &machine{Config: c, catalog: []catalog.Service{{Name: "a", Host: "here"}, {Name: "b", Host: "here"}, {Name: "c", Host: "there"}}}
}

func TestTheMachineOfADrillGetsTheKitAndNoMore(t *testing.T) {
	m := ofDrills(t)
	m.proxy = "http://10.0.0.1:3128"
	tr := &trial{m: m, chosen: m.catalog[:1]}
	vars, err := tr.vars()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(vars)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"AWS_SECRET_ACCESS_KEY":"of-restore"`, `"password":"correct horse"`, `"services_left_out":["b","c"]`, `"restic_schedule":false`, `"restic_drills":[]`, `"HTTPS_PROXY":"http://10.0.0.1:3128"`, `"services_host":"here"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("there is no %s in %s", want, text)
		}
	}
	for _, never := range []string{"of-backup", "maintenance", `"backup":`} {
		if strings.Contains(string(text), never) {
			t.Errorf("%s travels: %s", never, text)
		}
	}
	if _, there := vars["restic_sha256"]; there {
		t.Error("where nobody wrote restic's checksum down, one is made up")
	}
	m.path = filepath.Join(filepath.Dir(m.Restic), "homelab.yaml")
	if err := os.WriteFile(filepath.Join(filepath.Dir(m.Restic), "restic.sha256"), []byte("abc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if vars, err = tr.vars(); err != nil || vars["restic_sha256"] != "abc" {
		t.Errorf("the checksum that role restic wrote down: %v %v", vars["restic_sha256"], err)
	}
	delete(m.Repositories["fast"].Keys, "restore")
	if _, err := tr.vars(); err == nil || !strings.Contains(err.Error(), "no restore key") {
		t.Error(err)
	}
}

func TestOnlySSHAndItsOptionsReachAMachineByPlaybooks(t *testing.T) {
	tr := &trial{d: drillCall{host: "admin@10.0.0.5", ssh: "/usr/bin/ssh -i key -p 2222"}}
	file, err := tr.inventory(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(file)
	for _, want := range []string{`"ansible_user":"admin"`, `"ansible_host":"10.0.0.5"`, `"ansible_ssh_common_args":"-i key -p 2222"`, `"restic":{"hosts":{"drill":{}}}`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	tr.d.ssh = "docker exec"
	if _, err := tr.inventory(t.TempDir()); err == nil {
		t.Error("docker exec is no ssh")
	}
}

func TestImagesAreReadOutOfAnArchive(t *testing.T) {
	file := filepath.Join(t.TempDir(), "images.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	manifest := `[{"RepoTags":["a:1","b:2"]},{"RepoTags":["c:3"]}]`
	for name, text := range map[string]string{"layer.tar": "x", "manifest.json": manifest} {
		w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(text))})
		w.Write([]byte(text))
	}
	w.Close()
	f.Close()
	images, err := imagesIn([]string{file})
	var names []string
	for _, i := range images {
		names = append(names, i["name"])
	}
	if err != nil || !slices.Equal(names, []string{"a:1", "b:2", "c:3"}) {
		t.Errorf("%v %v", names, err)
	}
	if images, err := imagesIn([]string{""}); err != nil || len(images) != 0 {
		t.Errorf("of no archive: %v %v", images, err)
	}
	nameless := filepath.Join(t.TempDir(), "nameless.tar")
	text := "null"
	var b bytes.Buffer
	w = tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "manifest.json", Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(text))})
	w.Write([]byte(text))
	w.Close()
	os.WriteFile(nameless, b.Bytes(), 0o600)
	if _, err := imagesIn([]string{nameless}); err == nil || !strings.Contains(err.Error(), "holds no image") {
		t.Errorf("an archive of nothing: %v", err)
	}
	os.WriteFile(file, []byte("no archive"), 0o600)
	if _, err := imagesIn([]string{file}); err == nil || !strings.Contains(err.Error(), "docker save") {
		t.Error(err)
	}
}
