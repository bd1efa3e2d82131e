'use strict';
// What no rule can know. Kept explicit: every line is a judgement that can be looked at.

const lines = (text) => text.trim().split('\n').flatMap((l) => l.trim().split(/\s+/));
const pairs = (text) => Object.fromEntries(text.trim().split('\n').map((l) => l.trim().split(/\s+/)));

// One brand under two names: what the rules find, and the label it gets.
const aliases = pairs(`
  admob googleadmob
  amex americanexpress
  angularjs angular
  ao3 archiveofourown
  apacheairflow airflow
  apachecassandra cassandra
  apachecordova cordova
  apachecouchdb couchdb
  apachehadoop hadoop
  apachehbase hbase
  apachehttp apache
  apachekafka kafka
  apachelucene lucene
  apachemaven maven
  apachesolr solr
  apachetomcat tomcat
  appbaseio appbase
  appleappstore appstore
  applefinder finder
  appleicloud icloud
  appleios ios
  applepodcast applepodcasts
  applesafari safari
  appstoreios appstore
  arcbrowser arc
  arch archlinux
  atomeditor atom
  avajs ava
  bard googlebard
  bem2 bem
  biomejs biome
  blendersoftware blender
  bookingcom booking
  bravebrowser brave
  btc bitcoin
  capacitorjs capacitor
  chromecast googlecast
  claudeai claude
  conanio conan
  concourseci concourse
  cpp cplusplus
  css3official css3
  cursorai cursor
  dandd dungeonsanddragons
  dartlang dart
  deliciousburger delicious
  dingding dingtalk
  dolbydigital dolby
  drizzleorm drizzle
  eclipseide eclipse
  electronframework electron
  electronicarts ea
  emberjs ember
  expressjs express
  fabricio fabric
  facebookmessenger messenger
  facebookworkplace workplace
  firefoxbrowser firefox
  flyio fly
  gatsbyjs gatsby
  gemini googlegemini
  getpocket pocket
  githuboctocat github
  gnubash bash
  gnuemacs emacs
  gogcom gog
  golang go
  googleadwords googleads
  googleallo allo
  googleantigravity antigravity
  googlechrome chrome
  googlecloudplatform googlecloud
  googlegmail gmail
  googlehangouts hangouts
  googleplaystore googleplay
  grokai grok
  groqai groq
  handlebarsjs handlebars
  honojs hono
  ie internetexplorer
  itch itchio
  js javascript
  jwt jsonwebtokens
  knexjs knex
  koreio kore
  linearapp linear
  linechat line
  linuxtux linux
  macosx macos
  mailchimpfreddie mailchimp
  materialui mui
  mcp modelcontextprotocol
  mercedes mercedesbenz
  microsoftazure azure
  microsoftbing bing
  microsoftedge edge
  microsoftedgelegacy edgelegacy
  microsoftinternetexplorer internetexplorer
  microsoftoffice office
  microsoftonedrive onedrive
  microsoftonenote onenote
  microsoftoutlook outlook
  microsoftvisualstudio visualstudio
  microsoftvisualstudiocode visualstudiocode
  microsoftwindows windows
  microsoftxbox xbox
  microsoftyammer yammer
  natsio nats
  neontech neon
  neteasemusic neteasecloudmusic
  nfcdirectional nfc
  nimlang nim
  nix nixos
  node nodejs
  npm2 npm
  npmjs npm
  nuxtjs nuxt
  nytimes newyorktimes
  observablehq observable
  oci opencontainersinitiative
  octocat github
  okru odnoklassniki
  onepassword 1password
  openapiinitiative openapi
  opensourceinitiative opensource
  osi opensource
  payloadcms payload
  perplexityai perplexity
  phoenixframework phoenix
  playstore googleplay
  polymerproject polymer
  prismaorm prisma
  qqchat qq
  qwenai qwen
  rails rubyonrails
  rasberrypi raspberrypi
  reactjs react
  reasonml reason
  remixjs remix
  remixrun remix
  rlang r
  rproject r
  sailsjs sails
  sectionio section
  shieldsio shields
  signalmessenger signal
  sinaweibo weibo
  sketchapp sketch
  sonyplaystation playstation
  squareinc square
  squareinccash cashapp
  stenciljs stencil
  tailwind tailwindcss
  teams microsoftteams
  theguardian guardian
  tux linux
  torproject tor
  twitterx x
  unreal unrealengine
  vitejs vite
  vlang v
  vlc vlcmediaplayer
  vscode visualstudiocode
  vuejs vue
  vuetifyjs vuetify
  webcomponent webcomponents
  webcomponentsorg webcomponents
  webhooks webhook
  weixin wechat
  xtwitter x
  yandexru yandex
  zorinos zorin
`);

// One icon whose name means another brand in this set than elsewhere (logos:cobalt is not simple-icons' cobalt),
// or ends in a letter of its own (facebook-f).
const perIcon = pairs(`
  bxl:bolt-b bolt
  bxl:edge edgelegacy
  bxl:paddle-p paddle
  fa6-brands:blogger-b blogger
  fa6-brands:bluetooth-b bluetooth
  fa6-brands:dev devto
  fa6-brands:facebook-f facebook
  fa6-brands:fonticons-fi fonticons
  fa6-brands:glide glidevideo
  fa6-brands:glide-g glidevideo
  fa6-brands:goodreads-g goodreads
  fa6-brands:google-plus-g googleplus
  fa6-brands:hive hiveblockchain
  fa6-brands:itunes-note itunes
  fa6-brands:kickstarter-k kickstarter
  fa6-brands:linkedin-in linkedin
  fa6-brands:nfc-symbol nfc
  fa6-brands:pied-piper-hat piedpiper
  fa6-brands:pied-piper-pp piedpiper
  fa6-brands:pinterest-p pinterest
  fa6-brands:reddit-alien reddit
  fa6-brands:square-js javascript
  fa6-brands:stripe-s stripe
  fa6-brands:vimeo-v vimeo
  fa6-brands:wikipedia-w wikipedia
  fa6-brands:wordpress-simple wordpress
  ion:logo-amplify awsamplify
  logos:backbone backbonejs
  logos:backbone-icon backbonejs
  logos:cobalt cobaltrs
  logos:cockpit cockpitcms
  logos:craft craftcms
  logos:dev webdev
  logos:dev-icon webdev
  logos:drizzle drizzletruffle
  logos:drizzle-icon drizzletruffle
  logos:element elementui
  logos:flux facebookflux
  logos:gleam gleamio
  logos:hermes hermesengine
  logos:marvel marvelapp
  logos:now zeitnow
  logos:otto hashicorpotto
  logos:solid solidproject
  ri:bit-coin-fill bitcoin
  ri:bit-coin-line bitcoin
  ri:copilot-fill githubcopilot
  ri:copilot-line githubcopilot
  ri:drive-fill googledrive
  ri:drive-line googledrive
  ri:edge-fill edgelegacy
  ri:edge-line edgelegacy
  ri:edge-new-fill edge
  ri:edge-new-line edge
  ri:spectrum-fill spectrumchat
  ri:spectrum-line spectrumchat
  ri:switch-fill nintendoswitch
  ri:switch-line nintendoswitch
  simple-icons:solid solidjs
  tabler:brand-backbone backbonejs
`);

// White on nothing: a white square on white paper. (The logos set's *-dark twins are left out by rule.)
const invisible = new Set(lines(`
  logos:million-icon
`));

// Called a logo by their set, but nobody's brand.
const notBrands = new Set(lines(`
  ion:logo-closed-captioning ion:logo-euro ion:logo-usd ion:logo-yen ion:logo-no-smoking
  ion:logo-game-controller-a ion:logo-game-controller-b
  ion:social-euro-outline ion:social-usd-outline ion:social-yen-outline
`));

// Brand drawings that the mixed sets do not name as such: mdi withdrew some (they carry no category any more), others
// are filed as plain glyphs. Names of standards and licences with a mark of their own (bluetooth, rss, creative-commons)
// are here too, where the drawing is that mark.
const mdiBrands = new Set(lines(`
  accusoft adobe allo amazon amazon-alexa amazon-drive android-auto appnet bandcamp basecamp battlenet beam beats
  behance blackberry blogger buffer cisco-webex concourse-ci discord disqus-outline douban dribbble dribbble-box ebay
  etsy eventbrite facebook-box flattr flickr foursquare github-box github-face glassdoor google-allo google-home
  google-pages google-photos google-physical-web google-plus-box google-wallet hangouts houzz houzz-box instapaper
  itunes lastfm linode lyft mail-ru mastodon-variant maxcdn medium meetup microsoft-edge-legacy microsoft-yammer
  mixcloud mixer npm-variant npm-variant-outline onedrive onenote outlook paypal periscope pinterest-box prezi
  quicktime rdio shopify slackware square-inc square-inc-cash steam-box strava teamspeak telegram tor tumblr tumblr-box
  tumblr-reblog twitter-box twitter-circle uber untappd venmo vine vk vk-box vk-circle wunderlist xamarin-outline xda
  xing xing-circle y-combinator yammer yelp
  bluetooth contactless-payment google-nearby google-street-view hubspot pocket powershell quora raspberry-pi rss
  usb webhook
`));
const riBrands = new Set(lines(`
  cursor-ai gitbook grok-ai microsoft-copilot qwen-ai reddit-2 zhipu-ai
  bit-coin bluetooth btc china-railway copyleft creative-commons creative-commons-by creative-commons-nc
  creative-commons-nd creative-commons-sa creative-commons-zero css3 html5 javascript markdown php rss usb xrp
`));

const tablerBrands = new Set(lines(`
  bluetooth copyleft copyleft-filled creative-commons creative-commons-by creative-commons-nc creative-commons-nd
  creative-commons-sa creative-commons-zero markdown rss usb webhook
`));
const ionBrands = new Set(lines(`
  bluetooth bluetooth-outline bluetooth-sharp
`));

module.exports = { aliases, perIcon, invisible, notBrands, mdiBrands, riBrands, tablerBrands, ionBrands };
