// Command standin is a stand-in for providers of Terraform where no registry can be reached. It knows the schemas that were written from
// the providers' documentation, of the resources that homelab-iac/terraform uses and no others, and it manages nothing: what is applied with
// it is only written into the state, with made-up values where the real provider would have told some. What a real provider checks by
// itself (regular expressions, conflicts, limits) does not happen here.
//
// It plays the provider that it is called like: terraform-provider-aws_v5.100.0 plays aws.
package main

import (
	"embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tfprotov6/tf6server"
)

//go:embed schemas/*.json
var schemas embed.FS

func main() {
	if err := serve(filepath.Base(os.Args[0])); err != nil {
		fmt.Fprintln(os.Stderr, "standin:", err)
		os.Exit(1)
	}
}

func serve(program string) error {
	name, _, _ := strings.Cut(strings.TrimPrefix(program, "terraform-provider-"), "_v")
	text, err := schemas.ReadFile("schemas/" + name + ".json")
	if err != nil {
		return fmt.Errorf("play %q: %w", name, err)
	}
	var p provider
	if err := json.Unmarshal(text, &p); err != nil {
		return fmt.Errorf("read schemas/%s.json: %w", name, err)
	}
	return tf6server.Serve("registry.terraform.io/standin/"+name, func() tfprotov6.ProviderServer { return &server{provider: p} })
}
