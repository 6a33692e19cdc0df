package main

import (
	"context"
	"fmt"

	"github.com/hashicorp/terraform-plugin-go/tfprotov6"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// A server answers what Terraform asks of a provider. The methods that are left out are never asked for by what is used here.
type server struct {
	tfprotov6.ProviderServer
	provider provider
}

func (s *server) GetMetadata(context.Context, *tfprotov6.GetMetadataRequest) (*tfprotov6.GetMetadataResponse, error) {
	out := &tfprotov6.GetMetadataResponse{ServerCapabilities: &tfprotov6.ServerCapabilities{}}
	for name := range s.provider.Resources {
		out.Resources = append(out.Resources, tfprotov6.ResourceMetadata{TypeName: name})
	}
	return out, nil
}

func (s *server) GetProviderSchema(context.Context, *tfprotov6.GetProviderSchemaRequest) (*tfprotov6.GetProviderSchemaResponse, error) {
	out := &tfprotov6.GetProviderSchemaResponse{Provider: s.provider.Provider.told(), ResourceSchemas: map[string]*tfprotov6.Schema{}, DataSourceSchemas: map[string]*tfprotov6.Schema{}}
	for name, r := range s.provider.Resources {
		out.ResourceSchemas[name] = r.told()
	}
	return out, nil
}

func (s *server) GetResourceIdentitySchemas(context.Context, *tfprotov6.GetResourceIdentitySchemasRequest) (*tfprotov6.GetResourceIdentitySchemasResponse, error) {
	return &tfprotov6.GetResourceIdentitySchemasResponse{}, nil
}

func (s *server) ValidateProviderConfig(_ context.Context, r *tfprotov6.ValidateProviderConfigRequest) (*tfprotov6.ValidateProviderConfigResponse, error) {
	return &tfprotov6.ValidateProviderConfigResponse{PreparedConfig: r.Config}, nil
}

func (s *server) ConfigureProvider(context.Context, *tfprotov6.ConfigureProviderRequest) (*tfprotov6.ConfigureProviderResponse, error) {
	return &tfprotov6.ConfigureProviderResponse{}, nil
}

func (s *server) ValidateResourceConfig(context.Context, *tfprotov6.ValidateResourceConfigRequest) (*tfprotov6.ValidateResourceConfigResponse, error) {
	return &tfprotov6.ValidateResourceConfigResponse{}, nil
}

func (s *server) ValidateDataResourceConfig(context.Context, *tfprotov6.ValidateDataResourceConfigRequest) (*tfprotov6.ValidateDataResourceConfigResponse, error) {
	return &tfprotov6.ValidateDataResourceConfigResponse{}, nil
}

func (s *server) StopProvider(context.Context, *tfprotov6.StopProviderRequest) (*tfprotov6.StopProviderResponse, error) {
	return &tfprotov6.StopProviderResponse{}, nil
}

func (s *server) typeOf(name string) tftypes.Type {
	return s.provider.Resources[name].told().ValueType()
}

func trouble(err error) []*tfprotov6.Diagnostic {
	return []*tfprotov6.Diagnostic{{Severity: tfprotov6.DiagnosticSeverityError, Summary: "stand-in: " + err.Error()}}
}

func (s *server) UpgradeResourceState(_ context.Context, r *tfprotov6.UpgradeResourceStateRequest) (*tfprotov6.UpgradeResourceStateResponse, error) {
	t := s.typeOf(r.TypeName)
	v, err := r.RawState.UnmarshalWithOpts(t, tfprotov6.UnmarshalOpts{ValueFromJSONOpts: tftypes.ValueFromJSONOpts{IgnoreUndefinedAttributes: true}})
	if err != nil {
		return &tfprotov6.UpgradeResourceStateResponse{Diagnostics: trouble(err)}, nil
	}
	d, err := tfprotov6.NewDynamicValue(t, v)
	if err != nil {
		return &tfprotov6.UpgradeResourceStateResponse{Diagnostics: trouble(err)}, nil
	}
	return &tfprotov6.UpgradeResourceStateResponse{UpgradedState: &d}, nil
}

func (s *server) ReadResource(_ context.Context, r *tfprotov6.ReadResourceRequest) (*tfprotov6.ReadResourceResponse, error) {
	return &tfprotov6.ReadResourceResponse{NewState: r.CurrentState, Private: r.Private}, nil // nobody changed anything
}

// PlanResourceChange leaves open what a real provider would tell after an apply.
func (s *server) PlanResourceChange(_ context.Context, r *tfprotov6.PlanResourceChangeRequest) (*tfprotov6.PlanResourceChangeResponse, error) {
	t := s.typeOf(r.TypeName)
	if prior, err := r.PriorState.Unmarshal(t); err == nil && !prior.IsNull() {
		return &tfprotov6.PlanResourceChangeResponse{PlannedState: r.ProposedNewState, PlannedPrivate: r.PriorPrivate}, nil
	}
	attributes := s.provider.Resources[r.TypeName].Block.Attributes
	d, err := change(t, r.ProposedNewState, func(path *tftypes.AttributePath, v tftypes.Value) tftypes.Value {
		name, ok := path.LastStep().(tftypes.AttributeName)
		if ok && len(path.Steps()) == 1 && v.IsNull() && attributes[string(name)].Computed {
			return tftypes.NewValue(v.Type(), tftypes.UnknownValue)
		}
		return v
	})
	if err != nil {
		return &tfprotov6.PlanResourceChangeResponse{Diagnostics: trouble(err)}, nil
	}
	return &tfprotov6.PlanResourceChangeResponse{PlannedState: d, PlannedPrivate: r.PriorPrivate}, nil
}

// ApplyResourceChange makes up what was left open.
func (s *server) ApplyResourceChange(_ context.Context, r *tfprotov6.ApplyResourceChangeRequest) (*tfprotov6.ApplyResourceChangeResponse, error) {
	d, err := change(s.typeOf(r.TypeName), r.PlannedState, func(_ *tftypes.AttributePath, v tftypes.Value) tftypes.Value {
		if v.IsKnown() {
			return v
		}
		switch {
		case v.Type().Is(tftypes.String):
			return tftypes.NewValue(v.Type(), "1000")
		case v.Type().Is(tftypes.Number):
			return tftypes.NewValue(v.Type(), 1000)
		case v.Type().Is(tftypes.Bool):
			return tftypes.NewValue(v.Type(), false)
		}
		return tftypes.NewValue(v.Type(), nil)
	})
	if err != nil {
		return &tfprotov6.ApplyResourceChangeResponse{NewState: r.PriorState, Diagnostics: trouble(err)}, nil
	}
	return &tfprotov6.ApplyResourceChangeResponse{NewState: d, Private: r.PlannedPrivate}, nil
}

func change(t tftypes.Type, in *tfprotov6.DynamicValue, f func(*tftypes.AttributePath, tftypes.Value) tftypes.Value) (*tfprotov6.DynamicValue, error) {
	v, err := in.Unmarshal(t)
	if err != nil {
		return nil, fmt.Errorf("read value: %w", err)
	}
	if v.IsNull() {
		return in, nil
	}
	v, err = tftypes.Transform(v, func(p *tftypes.AttributePath, v tftypes.Value) (tftypes.Value, error) { return f(p, v), nil })
	if err != nil {
		return nil, fmt.Errorf("change value: %w", err)
	}
	d, err := tfprotov6.NewDynamicValue(t, v)
	if err != nil {
		return nil, fmt.Errorf("write value: %w", err)
	}
	return &d, nil
}
