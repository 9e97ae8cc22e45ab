/* version.h - which version this is, for people and for providers. */
#ifndef UF_VERSION_H
#define UF_VERSION_H

#define UF_VERSION    "0.1.0"
#define UF_USER_AGENT "usage-fetcher/" UF_VERSION /* providers ask for Name/Version */

#endif
