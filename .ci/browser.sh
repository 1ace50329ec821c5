# To be sourced from the project's folder. Installs Chromium and its driver for the tests that open
# pages, where apt-get can; elsewhere those tests use what they find or say what they miss.

install_browser() {
    if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then
        return 0
    fi
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends \
            chromium chromium-driver
    fi
}

install_browser
