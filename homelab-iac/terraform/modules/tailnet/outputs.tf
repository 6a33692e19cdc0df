output "join_keys" {
  description = "The keys, by machine."
  value       = { for name, k in tailscale_tailnet_key.join : name => k.key }
  sensitive   = true
}

output "policy" {
  description = "The policy as Tailscale gets it."
  value       = local.policy
}
