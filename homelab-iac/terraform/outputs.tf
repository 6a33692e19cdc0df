output "servers" {
  description = "The public addresses of the rented servers, by name."
  value       = { for name, s in module.vps : name => s.address }
}

output "repositories" {
  description = "Where restic's repositories are, for restic_repositories in the inventory."
  value       = { for tier, b in module.bucket : tier => b.repository }
}

output "storage_keys" {
  description = "The storage keys: their IDs, and their secrets encrypted with pgp_key (base64 --decode | gpg --decrypt)."
  value       = { for tier, b in module.bucket : tier => b.keys }
}

output "join_keys" {
  description = "Keys with which machines join the tailnet. Each works once, for an hour."
  value       = module.tailnet.join_keys
  sensitive   = true
}
