"""Azure Key Vault, Managed HSM, Microsoft Entra ID and managed identities, as far as their documentation tells.

    python -m tests.fakes.azure FOLDER [--kind vault|hsm] [--latency SECONDS]

serves on free loopback ports until its standard input ends, its key material made by `cryptography` and lost with it.
Written from these pages of learn.microsoft.com:

    keyvault/general/authentication-requests-and-responses     the 401 and its WWW-Authenticate, errors' JSON
    keyvault/general/rest-error-codes                          401, 403 and 429
    key-vault/keys/about-keys-details                          key types, operations, attributes, algorithms
    key-vault/managed-hsm/...                                  oct-HSM, A128GCM to A256KW
    key-vault/keys/byok-specification                          the transfer blob
    key-vault/general/soft-delete-overview                     deletedkeys, recover, purge, purge protection
    key-vault/keys/how-to-configure-key-rotation               rotationpolicy, rotate
    rest/api/keyvault/keys                                     paths and bodies
    entra/identity-platform/v2-oauth2-client-creds-grant-flow  secret, certificate (PS256, x5t#S256), federated token
    entra/identity/managed-identities-azure-resources/...      IMDS; App Service's IDENTITY_ENDPOINT
"""
