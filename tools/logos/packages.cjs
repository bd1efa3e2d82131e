'use strict';
// The packages of the corpus: exact versions, and the checksum that npm publishes with each.
// `kind`: every drawing is a brand ('brands'), or only those that metadata names ('mixed').
module.exports = [
  { set: 'simple-icons', name: 'simple-icons', version: '16.37.0', kind: 'brands',
    integrity: 'sha512-8mCJIhpMYOL9g13GW59EiL3sVXJnTEKGCTZFaekl9UQ3Qo0SwVjnLaJ82QiaH8BKBdouEDzrHMXIWh8cBIy48A==' },
  { set: 'logos', name: '@iconify-json/logos', version: '1.2.19', kind: 'brands',
    integrity: 'sha512-ICjDNu2RW4xMk+0YAHyrTj/pW2BHgywcYyvf9DS16upalmSUbg+WqkEYJRim8iVOuVylyo9FFjzWLzACFhj8oA==' },
  { set: 'fa6-brands', name: '@iconify-json/fa6-brands', version: '1.2.6', kind: 'brands',
    integrity: 'sha512-twL3X4KWcxAhbc1vz/mIDsVr+CAItk1/EIfxKUVQtpv6O4eydk5KNYqTZWdvJNHGInUgd6vKg21aWfVgb5DXEg==' },
  { set: 'bxl', name: '@iconify-json/bxl', version: '1.2.4', kind: 'brands',
    integrity: 'sha512-R6gVQSxB1+XeVClK7KdACnk1SfP8xiAu6LHuKZmp6Ro5zwMQbpe9vFBv30F6eHMDL8lZ7eXuac5SRJ9C8DKehQ==' },
  { set: 'mdi', name: '@iconify-json/mdi', version: '1.2.3', kind: 'mixed',
    integrity: 'sha512-O3cLwbDOK7NNDf2ihaQOH5F9JglnulNDFV7WprU2dSoZu3h3cWH//h74uQAB87brHmvFVxIOkuBX2sZSzYhScg==' },
  { set: 'ri', name: '@iconify-json/ri', version: '1.2.10', kind: 'mixed',
    integrity: 'sha512-WWMhoncVVM+Xmu9T5fgu2lhYRrKTEWhKk3Com0KiM111EeEsRLiASjpsFKnC/SrB6covhUp95r2mH8tGxhgd5Q==' },
  { set: 'tabler', name: '@iconify-json/tabler', version: '1.2.41', kind: 'mixed',
    integrity: 'sha512-GHg+H/cnr0anaCoV383JONiOMxZQOdojWYNLgL3x0fRE07YW7c+AHiYmIhXet//oq26T830qitdP7l43ojiCXw==' },
  { set: 'ion', name: '@iconify-json/ion', version: '1.2.7', kind: 'mixed',
    integrity: 'sha512-ZJNG5kLCbTPr68mdP0jx6Q3lB9AMEQKO2+VvIjuJ2llGFICBLD+cvESn/qGDRIqSfk2D3PrFMf/Qg8WKIUV7cg==' },
];
